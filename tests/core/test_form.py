"""Tests that forms and queries are parsed as by the standard library."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.core.webhooks.form import form_fields


@given(st.text(alphabet="ab&=+%2fFe9 \r\n\t_.~é\\", max_size=60))
def test_fields_are_those_that_the_standard_library_reads(text: str) -> None:
    assert form_fields(text, "replace") == parse_qsl(text, keep_blank_values=True, errors="replace")


def test_escapes_are_bytes_of_utf_8() -> None:
    assert form_fields("a=%C3%A9+%e2%82%ac&b=1=2&c&%26=%3D%25") == [("a", "é €"), ("b", "1=2"), ("c", ""), ("&", "=%")]
    assert form_fields("a=%&b=%4&c=%zz&d=%%20") == [("a", "%"), ("b", "%4"), ("c", "%zz"), ("d", "% ")]
    for wrong in ("a=%FF", "&".join(["a=1"] * 1001), "%" * 2_000_000):
        with pytest.raises(ValueError, match=r"there are more|utf-8"):
            form_fields(wrong)
    assert form_fields("a=%FF", "replace") == [("a", "\ufffd")]

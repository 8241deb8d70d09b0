"""Definitions in JSON: strict, with the place of every value, and with errors at the right place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.project.json_text import parse_json
from stepwell.project.source import SourceError

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=15,
)


@given(VALUES, st.sampled_from([None, 2, "\t"]), st.booleans())
def test_json_text_is_read_back_unchanged(value: Any, indent: int | str | None, ascii_only: bool) -> None:
    assert parse_json(json.dumps(value, indent=indent, ensure_ascii=ascii_only)).data == value


@given(st.text(alphabet='{}[],:"\\ \n01-.eEtrufalsn'))
def test_any_text_is_read_like_the_json_module_or_refused(text: str) -> None:
    try:
        found = parse_json(text)
    except SourceError as error:
        assert error.line >= 1  # noqa: PT017
        assert error.column >= 1  # noqa: PT017
    else:
        assert found.data == json.loads(text)


def test_every_value_has_a_place() -> None:
    source = parse_json('{\n\t"a": [1,\n\t\t{"b": 2}],\r\n\t"c": {}\n}')
    assert source.places == {
        (): (1, 1),
        ("a",): (2, 2),
        ("a", 0): (2, 8),
        ("a", 1): (3, 3),
        ("a", 1, "b"): (3, 4),
        ("c",): (4, 2),
    }
    assert source.place(("a", 1, "missing")) == (3, 3)
    assert source.place(("missing", "deeper")) == (1, 1)


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("", (1, 1), "is empty"),
        ("  \n ", (2, 2), "is empty"),
        ('{"a": 1,\n "a": 2}', (2, 2), "the key 'a' twice"),
        ('{"a": 1,\n}', (1, 8), "has a `,` before `}`"),
        ("[1, 2,]", (1, 6), "has a `,` before `]`"),
        ('{"a" 1}', (1, 6), "expected `:` after the key 'a', not `1`"),
        ('{"a": 1 "b": 2}', (1, 9), 'expected `,` or `}`, not `"`'),
        ("{a: 1}", (1, 2), "expected a key in double quotes, not `a`"),
        ("{'a': 1}", (1, 2), "expected a key in double quotes, not `'`"),
        ('{"a": yes}', (1, 7), "expected a value, not `yes`"),
        ('{"a": NaN}', (1, 7), "expected a value, not `NaN`"),
        ('{"a": 1', (1, 8), "expected `,` or `}`, not the end of the file"),
        ('{"a": "x', (1, 7), "unterminated string"),
        ('{"a": "x\ty"}', (1, 9), "invalid control character"),
        ('"\\ud800"', (1, 9), "surrogate"),
        ("{} {}", (1, 4), "more text after its end"),
        ("01", (1, 2), "more text after its end"),
        ("9" * 401, (1, 1), "more than 400 digits"),
        ("[" * 100_000, (1, 66), "nested more than 64 deep"),
    ],
)
def test_a_mistake_is_reported_at_its_place(text: str, place: tuple[int, int], message: str) -> None:
    with pytest.raises(SourceError) as refused:
        parse_json(text)
    assert (refused.value.line, refused.value.column) == place, refused.value.message
    assert message in refused.value.message

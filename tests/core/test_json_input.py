"""Tests the limits on JSON from outside."""

from __future__ import annotations

import json
import re

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.core.json_input import (
    MAX_CONTAINERS,
    BadJson,
    TooDeep,
    is_deeper,
    large_integers,
    may_have_large_integers,
    parse_json,
)


def nested(levels: int, inner: str = "1") -> bytes:
    """Nested lists and objects, alternating."""
    pairs = [("[", "]") if n % 2 else ('{"a":', "}") for n in range(levels)]
    return ("".join(a for a, _ in pairs) + inner + "".join(b for _, b in reversed(pairs))).encode()


@pytest.mark.parametrize("text", ['{"a": 1}', "[]", "7", '"\ufeff"', "null"])
def test_a_byte_order_mark_is_ignored(text: str) -> None:
    assert parse_json(b"\xef\xbb\xbf" + text.encode()) == parse_json(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    "text", [b"\xef\xbb\xbf", b"\xef\xbb\xbf\xef\xbb\xbf{}", b"{}\xef\xbb\xbf", b"\xff\xfe{\x00}\x00"]
)
def test_other_byte_order_marks_are_not_json(text: bytes) -> None:
    with pytest.raises(BadJson):
        parse_json(text)


def test_a_text_may_have_128_levels() -> None:
    assert parse_json(nested(128))
    assert parse_json(b"[%b]" % nested(128), 129)
    for levels in (129, 254, 255, 1024, 1025, 100_000):
        with pytest.raises(TooDeep, match="more than 128 levels"):
            parse_json(nested(levels))


def test_brackets_in_texts_do_not_count_as_levels() -> None:
    assert parse_json(orjson.dumps({"code": "[{" * 150, "more": "]}" * 100}))
    hidden = b"".join(b'["]",' for _ in range(200)) + b"1" + b',"["]' * 200
    with pytest.raises(TooDeep):
        parse_json(hidden)


@given(st.integers(1, 200), st.integers(1, 200))
def test_depth_is_counted_exactly(levels: int, most: int) -> None:
    assert is_deeper(orjson.loads(nested(levels)), most) is (levels > most)


def test_the_number_of_objects_and_arrays_is_limited() -> None:
    assert len(parse_json(b"[" + b"[]," * (MAX_CONTAINERS - 2) + b"[]]")) == MAX_CONTAINERS - 1
    with pytest.raises(BadJson, match="more than 200,000 objects and arrays"):
        parse_json(b"[" + b"[]," * (MAX_CONTAINERS - 1) + b"[]]")


@pytest.mark.parametrize(
    ("text", "pointers"),
    [
        ("18446744073709551615", []),
        ("18446744073709551616", [""]),
        ("-9223372036854775808", []),
        ("[-9223372036854775809]", ["/0"]),
        ('{"a/b":{"~":[1, 99999999999999999999 ]}}', ["/a~1b/~0/1"]),
        ("[1e30, 123456789012345678901234.5, 1.23456789012345678901234]", []),
        ('["123456789012345678901", " 123456789012345678901 "]', []),
        ("[1234567890123456789, -1234567890123456789]", []),
        (f"[1{'0' * 5000}, 2, 3{'0' * 100_000}]", ["/0", "/2"]),
    ],
)
def test_integers_beyond_64_bits_are_found(text: str, pointers: list[str]) -> None:
    assert large_integers(text.encode()) == pointers


@given(
    st.recursive(
        st.integers(-(10**22), 10**22) | st.floats() | st.text(max_size=3),
        lambda strategy: st.lists(strategy) | st.dictionaries(st.text(max_size=2), strategy),
    )
)
def test_exactly_the_integers_that_do_not_fit_are_found(value: object) -> None:
    def walk(found: object) -> int:
        if isinstance(found, list | dict):
            return sum(map(walk, found.values() if isinstance(found, dict) else found))
        return isinstance(found, int) and not -(2**63) <= found < 2**64

    for separators in ((",", ":"), (" , ", " : ")):
        assert len(large_integers(json.dumps(value, separators=separators).encode())) == walk(value)


@pytest.mark.parametrize(
    "text",
    [
        b"[" + b"0," * 2_000_000 + b"0]",
        b"[" + b"1234567890123456789," * 200_000 + b"0]",
        b"{" + b'"a":1,' * 600_000 + b'"a":1}',
        b"[" * 4_000_000,
        b"[" + b"[]," * 1_300_000 + b"[]]",
        b'["' + b"[" * 4_000_000 + b'"]',
        b"[" + b"1" * 4_000_000 + b"]",
    ],
    ids=["numbers", "long numbers", "one key", "open", "lists", "text", "one number"],
)
def test_a_text_of_four_megabytes_is_refused_or_its_large_integers_are_found(text: bytes) -> None:
    """`bench/hostile.py` measures how long this takes."""
    try:
        parse_json(text)
    except BadJson:
        return
    digits = max(map(len, re.findall(rb"\d+", text)), default=0)
    assert bool(large_integers(text)) == (digits > 19)


@pytest.mark.parametrize("place", range(40))
@pytest.mark.parametrize("integer", [b"18446744073709551616", b"-9223372036854775809", b"9" * 300])
def test_a_large_integer_is_found_at_any_place(place: int, integer: bytes) -> None:
    text = b'["' + b"x" * place + b'",' + integer + b"]"
    assert may_have_large_integers(text)
    assert large_integers(text) == ["/1"]

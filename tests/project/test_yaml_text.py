"""Definitions in YAML: the same data as in JSON, without execution, explosion or guessing."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.project.source import SourceError
from stepwell.project.yaml_text import parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on: failure", {"on": "failure"}),
        ("a: [yes, no, on, off, y, n]", {"a": ["yes", "no", "on", "off", "y", "n"]}),
        ("a: [true, False, ~, null, '', ]", {"a": [True, False, None, None, ""]}),
        ("a:", {"a": None}),
        ("a: 2020-01-01", {"a": "2020-01-01"}),
        ("a: 12:30:45", {"a": "12:30:45"}),
        ("a: [1, -2, 0x1F, 0o17, 017, 1_000]", {"a": [1, -2, 31, 15, 17, "1_000"]}),
        ("a: [1.5, .5, 1e3, 0.15]", {"a": [1.5, 0.5, 1000.0, 0.15]}),
        ("a: .inf", {"a": math.inf}),
        ("a: 15m", {"a": "15m"}),
        ("1: x\ntrue: y", {"1": "x", "true": "y"}),
        ("a: &x {b: 1}\nc: *x", {"a": {"b": 1}, "c": {"b": 1}}),
        ("a: =", {"a": "="}),
        ("a: >-\n  b\n  c", {"a": "b c"}),
        ("a: !!str 1", {"a": "1"}),
    ],
)
def test_text_is_read_as_yaml_1_2(text: str, value: Any) -> None:
    assert parse_yaml(text).data == value


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(alphabet=st.characters(codec="ascii")),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet="abc -#:'", min_size=1), inner),
        max_leaves=8,
    )
)
def test_json_can_be_read_as_yaml(value: Any) -> None:
    assert parse_yaml(json.dumps(value)).data == value


def test_every_value_has_a_place() -> None:
    source = parse_yaml("a:\n  - 1\n  - b: 2\nc: {d: 3}\n")
    assert source.places == {
        (): (1, 1),
        ("a",): (1, 1),
        ("a", 0): (2, 5),
        ("a", 1): (3, 5),
        ("a", 1, "b"): (3, 5),
        ("c",): (4, 1),
        ("c", "d"): (4, 5),
    }


LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("", (1, 1), "is empty"),
        ("# nothing\n", (1, 1), "is empty"),
        ("a: 1\na: 2", (2, 1), "the key 'a' twice"),
        ("a: 1\n b: 2", (2, 3), "not valid YAML"),
        ("a: [1", (1, 6), "not valid YAML"),
        ("a: 1\n---\nb: 2", (2, 1), "not valid YAML"),
        ("a: *x", (1, 4), "undefined alias"),
        ("\ta: 1", (1, 1), "not valid YAML"),
        ("a: !!python/object/apply:os.system [ls]", (1, 4), "has the tag"),
        ("a: !x 1", (1, 4), "has the tag `!x`"),
        ("a: !!set {b}", (1, 4), "has the tag"),
        ("a: !!int x", (1, 4), "does not match its tag"),
        ('a: !!float ""', (1, 4), "does not match its tag"),
        ("a: " + "9" * 5000, (1, 4), "too long"),
        ("? [a]\n: 1", (1, 3), "a key that is not text"),
        ("a: b\x07", (1, 5), "U+0007"),
        ('a: "\\ud800"', (1, 4), "surrogate"),
        ("a: &x [*x]", (1, 4), "nested more than 64 deep"),
        ("[" * 10_000, (1, 65), "nested more than 64 deep"),
        (LAUGHS, (1, 11), "counting aliases"),
    ],
)
def test_a_mistake_is_reported_at_its_place(text: str, place: tuple[int, int], expected: str) -> None:
    with pytest.raises(SourceError) as refused:
        parse_yaml(text)
    assert expected in refused.value.message
    if text is not LAUGHS:
        assert (refused.value.line, refused.value.column) == place, refused.value.message

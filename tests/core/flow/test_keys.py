"""Tests the keys of limits: which events share one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.core.cel.expressions import Bindings, Scope, compile_value
from stepwell.core.events.events import Event, event_from
from stepwell.core.flow.keys import WHOLE, limit_key


def event(event_id: str = "e", **data: Any) -> Event:
    return event_from({"id": event_id, "name": "go", "ts": 0, "data": data, "user": {"id": "u1"}})


@pytest.mark.parametrize(
    ("one", "other", "is_equal"),
    [
        ("a", "a", True),
        ("a", "b", False),
        (1, 1.0, True),
        (0.0, -0.0, True),
        (1, "1", False),
        (1, True, False),
        (None, None, True),
        (None, False, False),
        ("#1", 1, False),
        ([1, "a"], [1.0, "a"], True),
        ([1, "a"], ["a", 1], False),
        ([], {}, False),
        ([["a"]], ["a"], False),
        ({"a": 1, "b": 2}, {"b": 2.0, "a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": 1}, {"b": 1}, False),
        ({"a": {"b": [1]}}, {"a": {"b": [1.0]}}, True),
        ({"list": []}, [], False),
    ],
)
def test_events_share_a_key_if_the_values_are_equal(one: Any, other: Any, is_equal: bool) -> None:
    keys = [limit_key("data.x", event(x=value)) for value in (one, other)]
    assert [problem for _, problem in keys] == [None, None]
    assert (keys[0] == keys[1]) is is_equal


SCALARS = st.none() | st.booleans() | st.sampled_from([0, 1, -1, 0.0, -0.0, 1.0, 0.5, 2**53, 2**53 + 1, 2.0**64]) | (
    st.sampled_from(["", "a", "1", "#1", "list"])
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b", "list"]), inner, max_size=2),
    max_leaves=6,
)


@given(one=VALUES, other=VALUES)
def test_two_values_have_the_same_key_exactly_if_cel_says_that_they_are_equal(one: Any, other: Any) -> None:
    bindings = Bindings(event=event(one=one, other=other).as_json())
    answer = compile_value("data.one == data.other", Scope.TRIGGER).value(bindings)
    keys = {limit_key("data.x", event(x=value))[0] for value in (one, other)}
    assert (len(keys) == 1) is answer.value


def test_a_key_may_combine_values_of_event_user_and_data() -> None:
    keys = {
        limit_key("[user.id, data.region, event.name]", event(region=region))[0] for region in ("eu", "us", "eu", "us")
    }
    assert len(keys) == 2


def test_without_an_expression_all_events_share_one_key() -> None:
    assert limit_key(None, event("a")) == limit_key(None, event("b")) == (WHOLE, None)


def test_events_without_a_value_never_share_a_key() -> None:
    (one, why), (other, _) = (limit_key("data.customer", event(name)) for name in ("e1", "e2"))
    assert one != other
    assert why is not None
    assert "customer" in why


def test_the_same_event_without_a_value_has_the_same_key_again() -> None:
    assert limit_key("data.customer", event("e1")) == limit_key("data.customer", event("e1"))


def test_a_rerun_of_an_event_without_a_value_has_a_key_of_its_own() -> None:
    keys = {limit_key("data.customer", event("e1"), run)[0] for run in (None, "run-1", "run-2")}
    assert len(keys) == 3


def test_a_value_never_has_the_key_of_an_event_without_one() -> None:
    assert limit_key("data.x", event("e1", x="e1"))[0] != limit_key("data.x", event("e1"))[0]


def test_a_value_that_is_not_json_is_a_problem() -> None:
    _, why = limit_key("timestamp('2026-01-01T00:00:00Z')", event())
    assert why is not None
    assert "string()" in why


def test_a_value_with_too_many_levels_is_a_problem() -> None:
    deep: Any = "x"
    for _ in range(8):
        deep = [deep]
    assert limit_key("data.x", event(x=deep))[1] is None
    assert limit_key("data.x", event(x=[deep]))[1] == "the value has more than 8 levels of lists and objects"

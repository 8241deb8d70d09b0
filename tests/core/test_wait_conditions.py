"""Tests the check whether an event may satisfy a wait that is found by name alone."""

from __future__ import annotations

import operator
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stepwell.core.cel.ast import Const
from stepwell.core.compile import compile_plan
from stepwell.core.definition.definition import parse_definition
from stepwell.core.plan import Plan
from stepwell.core.routing.wait_conditions import Comparison, OpenMatch, known_json, wait_tests
from stepwell.core.run.inputs import match_answer

MIN = ("event", "data", "min")
TOTAL = ("async", "data", "total")


def plan_of(match: str | None) -> Plan:
    """Step `b` waits for an event after step `s`."""
    wait = {"event": "paid", "ttl": "1d", **({} if match is None else {"match": match})}
    steps = {"s": {"runtime": {"type": "docker", "image": "x"}}}
    steps["b"] = {**steps["s"], "after": [{"step": "s", "async": wait}]}  # type: ignore[dict-item]
    definition = parse_definition({"id": "f", "triggers": [{"event": "go"}], "steps": steps})
    return compile_plan(definition.normalised(), 1)


def known(match: str, event: dict[str, Any], output: Any = None) -> bytes | None:
    return known_json(plan_of(match), 0, event, {0: orjson.dumps(output)}, {})


@pytest.mark.parametrize(
    ("match", "comparisons", "is_whole"),
    [
        ("async.data.total >= event.data.min", [("_>=_", TOTAL, MIN)], True),
        ("event.data.min <= async.data.total", [("_<=_", MIN, TOTAL)], True),
        ("!(async.data.total < event.data.min)", [("_>=_", TOTAL, MIN)], True),
        ("!(async.data.total == 1 || false)", [("_!=_", TOTAL, Const(1))], False),
        ("has(async.data.x) && async.data.total > 5", [("_>_", TOTAL, Const(5))], False),
        ("async.data.total == 1 || async.data.total == event.data.min", [], False),
        ("async.data.list.exists(x, x == event.data.min)", [], False),
        ("async.data.total > event.data.min + 1", [], False),
    ],
)
def test_comparisons_that_must_hold_are_found(match: str, comparisons: Any, is_whole: bool) -> None:
    tests = wait_tests(match)
    assert (tests.comparisons, tests.is_whole) == (
        tuple(Comparison(*comparison) for comparison in comparisons),
        is_whole,
    )


COMPARE = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@pytest.mark.parametrize("is_negated", [False, True])
@pytest.mark.parametrize("sign", COMPARE)
def test_a_comparison_of_two_numbers_needs_no_evaluation(sign: str, is_negated: bool) -> None:
    match = f"async.data.n {sign} event.data.n"
    for left in (1, 2, 3):
        open_match = OpenMatch(f"!({match})" if is_negated else match, {"data": {"n": left}})
        may_satisfy = open_match.may_satisfy(orjson.dumps({"event": {"data": {"n": 2}}}))
        assert (may_satisfy, open_match.evaluated) == (COMPARE[sign](left, 2) is not is_negated, 0)


def test_a_wait_stores_the_values_that_its_match_names() -> None:
    event = {"data": {"min": 5, "other": "x" * 5000}, "user": {"id": "u", "name": "Ada"}, "id": "1"}
    assert orjson.loads(known("async.data.total > event.data.min && user.id != async.user.id", event) or b"") == {
        "event": {"data": {"min": 5}},
        "user": {"id": "u"},
    }
    assert orjson.loads(known("async.data.x > steps.s.n && has(response.n)", event, {"n": 1, "m": 2}) or b"") == {
        "steps": {"s": {"n": 1}},
        "response": {"n": 1},
    }
    assert known("async.data.total > 5", event) == b"{}"


def test_a_wait_stores_no_values_if_they_are_too_large() -> None:
    assert known("async.data.other > event.data.other", {"data": {"other": "x" * 5000}}) is None
    assert known_json(plan_of(None), 0, {}, {}, {}) is None


# --- the invariant ---------------------------------------------------------------------------------------------------

NUMBERS = [
    0,
    1,
    -1,
    0.0,
    -0.0,
    1.0,
    0.5,
    -1.5,
    2**53,
    2**53 + 1,
    -(2**53) - 1,
    2**63,
    2**64 - 1,
    -(2**63),
    2.0**53,
    2.0**64,
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(NUMBERS),
    st.sampled_from(NUMBERS),
    st.sampled_from(["", "a", "b", "é", "z", "\U0001f600", "\uffee", "1", "a\0", "a\ufffd"]),
)
VALUES = st.one_of(SCALARS, SCALARS, st.lists(SCALARS, max_size=2), st.dictionaries(st.sampled_from("ab"), SCALARS))
OBJECTS = st.dictionaries(st.sampled_from(["a", "b", "c-d"]), VALUES, max_size=3)
EVENTS = st.fixed_dictionaries({"data": OBJECTS, "user": OBJECTS, "id": st.sampled_from(["1", "2"]), "v": st.none()})


def any_of(texts: str) -> st.SearchStrategy[str]:
    return st.sampled_from([text.strip() for text in texts.strip().split("|")])


INCOMING = any_of(
    "async.data.a | async.data.b | async['data']['c-d'] | async.user.a | async.data.a.b | async.id | async"
)
KNOWN = any_of(
    """data.a | event.data.a | event.data.b | data['c-d'] | user.a | data.a.b | steps.s.a | steps.s | response
    | response.a | errors.s.message | event.id | event"""
)
CONSTANTS = any_of("1 | 1u | 1.0 | -1 | 0.5 | '1' | 'a' | '' | null | true | false | 9007199254740993 | b'a' | [1]")
OPERATORS = any_of("== | != | < | <= | > | >=")
LIKELY = st.tuples(any_of("a | b"), OPERATORS).map(lambda pair: f"async.data.{pair[0]} {pair[1]} event.data.{pair[0]}")
COMPARISONS = st.tuples(INCOMING, OPERATORS, KNOWN | CONSTANTS | INCOMING, st.booleans()).map(
    lambda pair: f"{pair[0]} {pair[1]} {pair[2]}" if pair[3] else f"{pair[2]} {pair[1]} {pair[0]}"
)
OTHERS = any_of(
    """true | false | has(async.data.a) | has(data.a.b) | data.a | data.a == event.data.b
    | size(async.data.a) > size(data.a)
    | async.data.a in [1, 'a', data.b] | data.b.exists(event, event == async.data.a) | async.data.a + data.a > 1"""
)
MATCHES = st.recursive(
    st.one_of(LIKELY, LIKELY, COMPARISONS, OTHERS),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}) && ({pair[1]})"),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}) || ({pair[1]})"),
        inner.map(lambda value: f"!({value})"),
    ),
    max_leaves=4,
)


@settings(deadline=None, max_examples=400)
@given(MATCHES, EVENTS, EVENTS, st.none() | VALUES | OBJECTS, st.booleans())
@example("async.data.a > event.data.a", {"data": {"a": 2**53 + 1}}, {"data": {"a": 2.0**53}}, None, False)
@example("async.data.a < event.data.a", {"data": {"a": "\U0001f600"}}, {"data": {"a": "\uffee"}}, None, False)
@example("async.data.a == event.data.a", {"data": {"a": "x\0"}}, {"data": {"a": "x\ufffd"}}, None, False)
@example("!(async.data.a < event.data.a)", {"data": {"a": 1}}, {"data": {"a": "x"}}, None, False)
@example("async.data.a < event.data.a", {"data": {"a": True}}, {"data": {"a": False}}, None, False)
def test_an_event_for_which_match_is_true_may_satisfy_the_wait(
    match: str, event: dict[str, Any], incoming: dict[str, Any], output: Any, has_failed: bool
) -> None:
    event, incoming = orjson.loads(orjson.dumps([event, incoming]))  # as after a transfer
    try:
        plan = plan_of(match)
    except ValueError:
        return  # the compiler refuses it: the types differ
    outputs = {} if has_failed else {0: orjson.dumps(output)}
    errors = {0: orjson.dumps({"message": output})} if has_failed else {}
    kept = known_json(plan, 0, event, outputs, errors)
    assert kept is not None
    holds = match_answer(plan, 0, event, outputs, errors, incoming).holds
    assert OpenMatch(match, incoming).may_satisfy(kept) is holds

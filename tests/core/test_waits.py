"""Tests the index of waits, and that an event is never missed by a wait that it matches."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stepwell.core.cel.ast import Const
from stepwell.core.cel.expressions import Bindings, Scope, compile_expression
from stepwell.core.routing.waits import WaitIndex, event_key, found_by_name, wait_index
from stepwell.core.run.answers import WaitKey

ORDER = WaitIndex((("data", "order_id"),), (("event", "data", "order_id"),))


@pytest.mark.parametrize(
    ("match", "index"),
    [
        ("async.data.order_id == event.data.order_id", ORDER),
        ("event.data.order_id == async.data.order_id", ORDER),
        ("async['data']['order_id'] == event.data['order_id']", ORDER),
        ("async.data.n > 1 && (true && async.data.order_id == event.data.order_id)", ORDER),
        ("async.user.id == user.id", WaitIndex((("user", "id"),), (("user", "id"),))),
        ("async.data.a == steps['s-1'].b.c", WaitIndex((("data", "a"),), (("steps", "s-1", "b", "c"),))),
        ("async.data.a == response.b", WaitIndex((("data", "a"),), (("response", "b"),))),
        ("async.data.a == response", WaitIndex((("data", "a"),), (("response",),))),
        ("async.data.a == errors.s.status", WaitIndex((("data", "a"),), (("errors", "s", "status"),))),
        ("async.id == data.id", WaitIndex((("id",),), (("data", "id"),))),
        ("async.data.kind == 'refund'", WaitIndex((("data", "kind"),), (Const("refund"),))),
        ("async.data.a == null", WaitIndex((("data", "a"),), (Const(None),))),
        # sorted by path, independent of the order in the source
        (
            "async.user.id == user.id && async.data.kind == 'x'",
            WaitIndex((("data", "kind"), ("user", "id")), (Const("x"), ("user", "id"))),
        ),
        # for two equalities with one path, the one with a value of the run
        ("async.id == 'x' && async.id == data.id", WaitIndex((("id",),), (("data", "id"),))),
        ("async.id == data.id && async.id == 'x'", WaitIndex((("id",),), (("data", "id"),))),
        ("async.id == data.a && async.id == data.b", WaitIndex((("id",),), (("data", "a"),))),
    ],
)
def test_equalities_with_values_of_the_run_are_an_index(match: str, index: WaitIndex) -> None:
    assert wait_index(match) == index


@pytest.mark.parametrize(
    "match",
    [
        None,
        "true",
        "async.data.a > event.data.a",
        "async.data.a != event.data.a",
        "async.data.a == event.data.a || async.data.b == 1",
        "!(async.data.a == event.data.a)",
        "async.data.a == async.data.b",
        "event.data.a == event.data.b",
        "async == event",
        "async.data.list[0] == event.data.a",
        "async.data.a == event.data.list[0]",
        "async.data.a == event.data.b + 1",
        "async.data.a == b'a'",
        "has(async.data.a) == event.data.a",
        "event.data.list.exists(x, async.data.a == x)",
        "event.data.list.exists(async, async.data.a == event.data.a)",
    ],
)
def test_a_match_without_such_an_equality_is_found_by_name(match: str | None) -> None:
    assert wait_index(match) is None


def test_only_a_value_of_the_run_relates() -> None:
    assert ORDER.relates
    assert not wait_index("async.data.kind == 'refund'").relates  # type: ignore[union-attr]
    assert wait_index("async.data.kind == 'refund' && async.id == data.id").relates  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("match", "why"),
    [
        ("async.data.a == event.data.a && async.data.n > 3", None),
        ("async.data.n > event.data.n", ""),
        ("async.data.a == async.data.b", ""),
        ("async.data.kind == 'refund'", "only with constants"),
        ("async.data.a == event.data.a || async.data.b == event.data.b", "is inside `||`"),
        ("!(async.data.a == event.data.a)", "is inside"),
        ("event.data.list.exists(x, x && async.data.a == event.data.b)", "is inside"),
        ("async.data.a == event.data.b + 1", "one is computed"),
        ("async.data.a == event.data.list[0]", "an entry of a list"),
    ],
)
def test_the_reason_why_a_wait_is_found_by_name_is_given(match: str, why: str | None) -> None:
    text = found_by_name(match)
    assert (why is None) == (text is None)
    assert (why or "") in (text or "")


def test_a_wait_and_its_event_have_the_same_key() -> None:
    key = ORDER.key("paid", {"event": {"data": {"order_id": "o-1"}}})
    assert key == WaitKey(event_key("paid", ORDER.paths, {"data": {"order_id": "o-1"}}))
    assert key.key is not None
    assert len(key.key) == 16
    assert key.key != event_key("paid", ORDER.paths, {"data": {"order_id": "o-2"}})
    assert key.key != event_key("sent", ORDER.paths, {"data": {"order_id": "o-1"}})
    assert key.key != event_key("paid", (("data", "other"),), {"data": {"other": "o-1"}})


def test_keys_are_the_same_in_every_process_and_version() -> None:
    assert event_key("paid", (("data", "n"),), {"data": {"n": 1}}) == bytes.fromhex("76ce30f8f0005cf64a9e6983bb8e51ca")


@pytest.mark.parametrize("value", [None, {}, {"order_id": []}, {"order_id": {}}, [], "text"])
def test_an_event_without_the_scalar_has_no_key(value: Any) -> None:
    assert event_key("paid", ORDER.paths, {"data": value}) is None


def test_a_wait_for_a_list_or_an_object_is_found_by_name() -> None:
    for value in ([], {}, ["o-1"]):
        assert ORDER.key("paid", {"event": {"data": {"order_id": value}}}) == WaitKey(None)


def test_a_wait_for_a_missing_value_cannot_be_satisfied() -> None:
    index = wait_index("async.data.a == data.list && async.data.b == steps['s-1'].b")
    assert index is not None
    for steps in ({}, {"s-1": {}}, {"s-1": None}, {"s-1": [1]}, {"s-1": "text"}):
        variables = {"data": {"list": [1]}, "steps": steps}
        assert index.key("paid", variables) == WaitKey(None, "there is no steps['s-1'].b")


ALIKE = [
    (1, 1.0),
    (0, -0.0),
    (2**53 + 1, 2.0**53),
    (2**63 - 1, 2.0**63),
    (2**64 - 1, 2.0**64),
    (-(2**63), -(2.0**63)),
    (1e300, 1e300),
]
UNLIKE = [(1, True), (0, False), (1, "1"), ("#1", 1), (None, "null"), (None, False), ("", None), (1, 1.5), ([1], 1)]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_numbers_that_are_equal_in_cel_have_the_same_key(one: Any, other: Any) -> None:
    assert matches("async.data.x == data.x", one, other)
    assert key_of(one) == key_of(other) != None  # noqa: E711


@pytest.mark.parametrize(("one", "other"), UNLIKE)
def test_values_of_different_types_have_different_keys(one: Any, other: Any) -> None:
    assert not matches("async.data.x == data.x", one, other)
    assert key_of(one) != key_of(other)


def key_of(value: Any) -> bytes | None:
    return event_key("a", (("data", "x"),), {"data": {"x": value}})


def matches(match: str, incoming: Any, known: Any) -> bool:
    bindings = Bindings({"data": {"x": known}}, async_event={"data": {"x": incoming}})
    return compile_expression(match, Scope.MATCH).evaluate(bindings).holds


# --- the invariant ---------------------------------------------------------------------------------------------------

EDGES = [2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 2.0**53, 2.0**63, 2.0**64, -(2.0**63)]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 0.0, -0.0, 1.0, 0.5, 1e300, "", "1", "#1", "true", "null", "é", *EDGES]),
    st.integers(-(2**63), 2**64 - 1),
    st.integers(-(2**63), 2**64 - 1).map(float),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=3),
)
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=2), st.dictionaries(st.sampled_from("ab"), SCALARS, max_size=2))
OBJECTS = st.dictionaries(st.sampled_from(["a", "b", "c-d"]), VALUES, max_size=3)
EVENTS = st.fixed_dictionaries({"data": OBJECTS, "user": OBJECTS, "id": st.sampled_from(["1", "2"]), "v": st.none()})
FIELDS = ["data.a", "data.b", "data['c-d']", "user.a", "data.a.b", "id", "v"]
INCOMING = st.sampled_from([f"async.{field}" for field in FIELDS])
KNOWN = st.sampled_from(
    [*FIELDS[:5], *(f"event.{f}" for f in FIELDS), "steps.s.a", "response", "response.a", "errors.s.a"]
)
CONSTANTS = st.sampled_from(["1", "1u", "1.0", "-1", "'1'", "null", "true", "2.0e0", "9007199254740993", "b'1'", "[1]"])
EQUALITIES = st.tuples(INCOMING, KNOWN | CONSTANTS | INCOMING, st.booleans()).map(
    lambda parts: f"{parts[0]} == {parts[1]}" if parts[2] else f"{parts[1]} == {parts[0]}"
)
OTHERS = st.sampled_from(
    ["true", "has(async.data.a)", "async.data.a != data.b", "(async.data.a == 1 || true)", "data.a"]
)
LIKELY = st.sampled_from(
    ["async.data.a == data.a", "event.data.b == async.data.b"]
)  # about fields that often have equal values
MATCHES = st.lists(EQUALITIES | OTHERS | LIKELY, max_size=2).flatmap(
    lambda parts: (EQUALITIES | LIKELY).map(lambda equality: " && ".join([*parts, equality]))
)


@st.composite
def situations(draw: st.DrawFn) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """A match, the variables of a run, and an incoming event with some equal values."""
    event, outputs = draw(EVENTS), draw(OBJECTS)
    known = {"event": event, "steps": {"s": outputs}, "errors": {"s": outputs}, "response": draw(VALUES | OBJECTS)}
    incoming = draw(EVENTS | st.just(event))
    for field, value in draw(st.fixed_dictionaries({"a": SCALARS, "b": SCALARS})).items():
        incoming = {**incoming, "data": {**incoming["data"], field: value}}
        known["event"] = {**known["event"], "data": {**known["event"]["data"], field: _alike(draw, value)}}
    return draw(MATCHES), known, incoming


def _alike(draw: st.DrawFn, value: Any) -> Any:
    """The value, or another one that may be equal in CEL."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        other = int(value) if isinstance(value, float) else float(value)
        return draw(st.sampled_from([value, other if -(2**63) <= other < 2**64 else value]))
    return value


@settings(deadline=None)  # the first example loads the library
@given(situations())
@example(
    (
        "async.data.a == data.a",
        {"event": {"data": {"a": 2**53 + 1}}, "steps": {}, "errors": {}, "response": None},
        {"data": {"a": 2.0**53}},
    )
)
def test_an_event_for_which_match_is_true_is_found(situation: tuple[str, dict[str, Any], dict[str, Any]]) -> None:
    match, known, incoming = situation
    known, incoming = orjson.loads(orjson.dumps([known, incoming]))  # as after a transfer
    try:
        index = wait_index(match)
    except ValueError:
        return  # the compiler refuses it: a constant has another type
    holds = compile_expression(match, Scope.MATCH).evaluate(Bindings(**known, async_event=incoming)).holds
    if index is None:
        return
    event = known["event"]
    wait = index.key("a", {**known, "user": event.get("user", {}), "data": event["data"]})
    if wait.problem is not None:
        assert not holds
    elif holds and wait.key is not None:
        assert wait.key == event_key("a", index.paths, incoming)

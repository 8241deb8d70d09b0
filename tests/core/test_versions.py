"""Tests the choice of a version for new runs, and the changes of a routing."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.core.compile import compile_plan
from stepwell.core.definition.definition import parse_definition
from stepwell.core.events.events import event_from
from stepwell.core.plan import Plan
from stepwell.core.routing.versions import (
    Canary,
    Guard,
    NotPossible,
    Route,
    Routing,
    State,
    deleted,
    deployed,
    from_json,
    paused,
    place,
    promoted,
    resumed,
    retired,
    rolled_back,
    to_json,
    with_canary,
)


def plan(version: int) -> Plan:
    return compile_plan(parse_definition({"id": "f", "triggers": [{"event": "go"}]}).normalised(), version)


def event(id: str, user: dict[str, Any] | None = None) -> Any:
    return event_from({"id": id, "name": "go", "user": user or {}, "ts": 0})


ONE, TWO = plan(1), plan(2)


@given(st.text(max_size=20), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_a_greater_weight_only_moves_values_to_the_canary(value: str, one: float, other: float) -> None:
    less, more = sorted((one, other))
    found = event("e", {"id": value})
    if Route(ONE, TWO, less, "user.id").choose(found) is TWO:
        assert Route(ONE, TWO, more, "user.id").choose(found) is TWO


@pytest.mark.parametrize("weight", [0.01, 0.2, 0.5, 0.9])
def test_the_split_is_near_the_weight(weight: float) -> None:
    count = 20_000
    found = sum(Route(ONE, TWO, weight).choose(event(f"e{n}")) is TWO for n in range(count))
    assert abs(found / count - weight) < 4 * (weight * (1 - weight) / count) ** 0.5


def test_a_value_always_gets_the_same_version() -> None:
    route = Route(ONE, TWO, 0.5, "user.external_id")
    for user in range(50):
        assert len({route.choose(event(f"{user}-{n}", {"external_id": user})).version for n in range(20)}) == 1


def test_equal_numbers_are_the_same_value() -> None:
    route = Route(ONE, TWO, 0.5, "user.id")
    for number in range(50):
        assert route.choose(event("a", {"id": number})) is route.choose(event("b", {"id": float(number)}))


@pytest.mark.parametrize("user", [{}, {"id": None}, {"id": ["x"]}, {"id": {"x": 1}}])
def test_without_a_value_the_event_decides(user: dict[str, Any]) -> None:
    route, plain = Route(ONE, TWO, 0.5, "user.id"), Route(ONE, TWO, 0.5)
    for n in range(50):
        assert route.choose(event(f"e{n}", user)) is plain.choose(event(f"e{n}"))


def test_functions_divide_their_events_independently() -> None:
    together = sum(place("f", n) < 0.5 and place("g", n) < 0.5 for n in range(4000))
    assert 850 < together < 1150


def test_a_place_never_reaches_one() -> None:
    assert all(0 <= place("f", n) < 1 for n in range(1000))


def test_a_value_exactly_at_the_weight_stays_with_the_live_version() -> None:
    weight = place("f", ["event", "e"])
    assert Route(ONE, TWO, weight).choose(event("e")) is ONE
    assert Route(ONE, TWO, math.nextafter(weight, 1)).choose(event("e")) is TWO


# --- changes ---------------------------------------------------------------------------------------------------------

CANARY = Canary(2, 0.1, "user.id", since=5, guard=Guard(5))
WITH = Routing(1, CANARY)


def test_the_first_version_is_live_at_once() -> None:
    assert deployed(None, 1) == Routing(1)
    assert with_canary(None, 1, 0.1, None, True, 9) == Routing(1)


def test_a_new_version_takes_over_and_the_old_one_is_remembered() -> None:
    assert deployed(Routing(1), 2) == Routing(2, previous=1)
    assert deployed(WITH, 3) == Routing(3, previous=1)
    assert deployed(Routing(2, previous=1), 2) == Routing(2, previous=1)


def test_a_deploy_does_not_end_a_pause_but_brings_back_what_was_deleted() -> None:
    assert deployed(Routing(1, state=State.PAUSED), 2).state is State.PAUSED
    assert deployed(deleted(WITH), 3) == Routing(3)
    assert deployed(retired(WITH), 3) == Routing(3)


def test_a_canary_is_promoted_or_gets_another_weight() -> None:
    assert with_canary(Routing(1), 2, 0.1, "user.id", True, 5) == WITH
    assert promoted(WITH, None, 9) == Routing(2, previous=1)
    assert promoted(WITH, 1.0, 9) == Routing(2, previous=1)
    assert promoted(WITH, 0.5, 9) == Routing(1, Canary(2, 0.5, "user.id", 9, Guard(5)))


def test_releasing_the_same_canary_again_changes_nothing() -> None:
    """The state of the guard is kept, unless a setting changes."""
    guarded, free = WITH, Routing(1, replace(CANARY, guard=None))
    assert with_canary(guarded, 2, 0.1, "user.id", True, 9) is guarded
    assert with_canary(free, 2, 0.1, "user.id", False, 9) is free
    assert with_canary(free, 2, 0.1, "user.id", True, 9).canary == Canary(2, 0.1, "user.id", 9, Guard(9))
    assert with_canary(guarded, 2, 0.1, "user.id", False, 9).canary == Canary(2, 0.1, "user.id", 9, None)
    assert with_canary(guarded, 3, 0.1, "user.id", True, 9).canary == Canary(3, 0.1, "user.id", 9, Guard(9))
    assert with_canary(guarded, 2, 0.2, "user.id", True, 9).canary == Canary(2, 0.2, "user.id", 9, Guard(9))
    assert with_canary(guarded, 2, 0.1, None, True, 9).canary == Canary(2, 0.1, None, 9, Guard(9))


def test_a_rollback_ends_the_canary_or_goes_to_the_version_before() -> None:
    assert rolled_back(WITH, None, [1, 2]) == Routing(1)
    assert rolled_back(Routing(2, previous=1), None, [1, 2]) == Routing(1)
    assert rolled_back(Routing(3, previous=1), None, [1, 2, 3]) == Routing(
        1
    )  # the version that was live, not the previous number
    assert rolled_back(Routing(3), None, [1, 3]) == Routing(1)
    assert rolled_back(Routing(3, previous=2), None, [1, 3]) == Routing(1)  # version 2 was deleted
    assert rolled_back(Routing(3), 2, [1, 2, 3]) == Routing(2)
    assert rolled_back(WITH, 1, [1, 2]) == Routing(1)
    assert rolled_back(Routing(1, state=State.PAUSED), 2, [1, 2]).state is State.PAUSED


@pytest.mark.parametrize(
    "change",
    [
        lambda: promoted(Routing(1), None, 1),
        lambda: promoted(WITH, 0, 1),
        lambda: promoted(WITH, float("nan"), 1),
        lambda: with_canary(Routing(1), 1, 0.1, None, False, 1),
        lambda: with_canary(Routing(1), 2, 0.0, None, False, 1),
        lambda: with_canary(Routing(1), 2, 1.0, None, False, 1),
        lambda: with_canary(Routing(1), 2, -1, None, False, 1),
        lambda: with_canary(Routing(1), 2, 0.1, "user.", False, 1),
        lambda: with_canary(Routing(1), 2, 0.1, "steps.a", False, 1),
        lambda: rolled_back(Routing(1), None, [1]),
        lambda: rolled_back(Routing(1), None, [1, 2]),
        lambda: rolled_back(Routing(1), 1, [1]),
        lambda: rolled_back(Routing(1), 7, [1]),
        lambda: rolled_back(Routing(None), None, [1]),
        lambda: paused(Routing(None), drop=False),
        lambda: resumed(Routing(None)),
    ],
)
def test_impossible_changes_are_refused_with_a_message(change: Any) -> None:
    with pytest.raises(NotPossible) as refused:
        change()
    assert len(str(refused.value)) > 10


@pytest.mark.parametrize(
    "routing", [Routing(None), WITH, Routing(3, state=State.DROPPING, previous=2), Routing(1, Canary(2, 0.3))]
)
def test_a_routing_survives_a_round_trip_through_json(routing: Routing) -> None:
    assert from_json(routing.live, to_json(routing)) == routing

"""`idempotency`: one run of a function per value in 24 hours."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.behaviour.words import Json, Platform, Refused, function, script

ORDER = "event.data.order"


def deploy(platform: Platform, idempotency: str = ORDER, **fields: Any) -> None:
    platform.deploy(function(idempotency=idempotency, **fields))


def order(platform: Platform, value: object, user: Json | None = None, **data: Any) -> str:
    event = platform.send(data={"order": value, **data}, user=user)
    platform.settle()
    return event


def started(platform: Platform, event: str) -> int:
    return len(platform.runs(event))


def test_only_the_first_event_with_a_value_starts_a_run(platform: Platform) -> None:
    deploy(platform)
    first, other, again = order(platform, 7), order(platform, 8), order(platform, 7)
    assert [started(platform, event) for event in (first, other, again)] == [1, 1, 0]
    (run,) = platform.runs(first)
    assert "problem" not in run
    assert platform.event(again)["data"] == {"order": 7}
    (miss,) = platform.event(again)["not_started"]
    assert (miss["function_id"], miss["expression"], miss["run_id"]) == ("f", ORDER, run["id"])
    assert run["id"] in miss["problem"]
    assert platform.event(first)["not_started"] == []


def test_events_in_one_request_with_the_same_value_start_one_run(platform: Platform) -> None:
    deploy(platform)
    ids = platform.send_raw(json.dumps([{"name": "go", "data": {"order": 7}}] * 5).encode())
    runs = platform.runs()
    assert len(runs) == 1
    refused = [event for event in ids if event != runs[0]["event_id"]]
    assert [[miss["run_id"] for miss in platform.event(event)["not_started"]] for event in refused] == 4 * [
        [runs[0]["id"]]
    ]


def test_each_function_has_its_own_values(platform: Platform) -> None:
    deploy(platform)
    deploy(platform, id="other")
    platform.deploy(function(id="plain"))
    first, again = order(platform, 7), order(platform, 7)
    assert sorted(run["function_id"] for run in platform.runs(first)) == ["f", "other", "plain"]
    assert [run["function_id"] for run in platform.runs(again)] == ["plain"]
    assert sorted(miss["function_id"] for miss in platform.event(again)["not_started"]) == ["f", "other"]


def test_a_value_also_counts_for_a_new_version(platform: Platform) -> None:
    deploy(platform)
    order(platform, 7)
    deploy(platform, steps={"b": {}})
    assert started(platform, order(platform, 7)) == 0


def test_a_value_counts_for_24_hours_after_the_first_event(platform: Platform) -> None:
    deploy(platform)
    order(platform, 7)
    platform.travel("23h")
    assert started(platform, order(platform, 7)) == 0
    platform.travel("59m")
    assert started(platform, order(platform, 7)) == 0
    platform.travel("2m")  # more than a day after the first event, but not after the last one
    assert [started(platform, order(platform, 7)) for _ in range(2)] == [1, 0]


def test_a_value_counts_until_the_last_millisecond_of_the_24_hours(platform: Platform) -> None:
    deploy(platform)
    order(platform, 7)
    platform.travel("23h59m59s999ms")
    assert started(platform, order(platform, 7)) == 0
    platform.travel("1ms")
    assert started(platform, order(platform, 7)) == 1


def test_erasing_a_user_does_not_free_a_value_that_a_later_run_holds(platform: Platform) -> None:
    deploy(platform)
    order(platform, 7, user={"id": "ada"})
    platform.travel("24h")
    assert started(platform, order(platform, 7, user={"id": "bob"})) == 1
    platform.api("DELETE", "/v1/users?id=ada")
    assert started(platform, order(platform, 7)) == 0
    platform.api("DELETE", "/v1/users?id=bob")
    assert started(platform, order(platform, 7)) == 1


def test_failed_and_cancelled_runs_count_too(platform: Platform) -> None:
    deploy(platform, steps={"a": {}, "b": {"after": {"step": "a", "wait": "1h"}}})
    failed = order(platform, 1, **script(a={"raise": "no"}))
    cancelled = order(platform, 2)
    platform.cancel(platform.runs(cancelled)[0]["id"])
    assert [platform.runs(event)[0]["status"] for event in (failed, cancelled)] == ["failed", "cancelled"]
    assert [started(platform, order(platform, value)) for value in (1, 2)] == [0, 0]


def test_values_survive_a_restart(platform: Platform) -> None:
    deploy(platform)
    order(platform, 7)
    platform.restart("1h")
    assert started(platform, order(platform, 7)) == 0


@pytest.mark.parametrize(
    ("first", "second", "runs"),
    [(1, 1.0, 0), (0, -0.0, 0), (1, "1", 1), (1, True, 1), (0, False, 1), (None, "null", 1), ("a", "a ", 1)],
)
def test_equal_values_count_as_one(platform: Platform, first: object, second: object, runs: int) -> None:
    deploy(platform)
    order(platform, first)
    assert started(platform, order(platform, second)) == runs


def test_a_value_can_be_any_scalar(platform: Platform) -> None:
    deploy(platform)
    for value in (None, True, 2**63, -(2**63), 1.5, 1e300, "", "x" * 100_000, "\u0000 \U0001f600/#"):
        assert [started(platform, order(platform, value)) for _ in range(2)] == [1, 0], value


@pytest.mark.parametrize(
    ("idempotency", "data"),
    [
        (ORDER, {}),
        (ORDER, {"order": {"id": 1}}),
        (ORDER, {"order": [1]}),
        ("data.order + 1", {"order": "x"}),
        ("event.data.order.id", {"order": None}),
        ("bytes(data.order)", {"order": "x"}),
    ],
)
def test_without_a_value_every_event_starts_a_run_that_shows_the_reason(
    platform: Platform, idempotency: str, data: Json
) -> None:
    deploy(platform, idempotency)
    for _ in range(2):
        (run,) = platform.runs(platform.send(data=data))
        assert (run["status"], run["problem"].startswith("idempotency: ")) == ("completed", True)


def test_a_duplicate_event_starts_no_run(platform: Platform) -> None:
    deploy(platform)
    for _ in range(2):
        platform.send(data={"order": 7}, id="once")
        platform.settle()
    assert started(platform, "once") == 1
    assert platform.event("once")["not_started"] == []


def test_events_kept_during_a_pause_are_checked_when_they_are_routed(platform: Platform) -> None:
    deploy(platform)
    platform.deploy(function(id="other", on={"event": "go", "expression": "data.other"}))
    platform.deploy(function(id="plain"))
    platform.api("POST", "/v1/functions/f/pause")
    platform.settle()
    first, again = order(platform, 7), order(platform, 7)
    platform.travel("23h")
    platform.api("POST", "/v1/functions/f/resume")
    platform.settle()
    assert sorted(run["function_id"] for run in platform.runs(first)) == ["f", "plain"]
    assert [run["function_id"] for run in platform.runs(again)] == ["plain"]
    assert sorted(miss["function_id"] for miss in platform.event(again)["not_started"]) == ["f", "other"]
    platform.travel("1h1m")  # a day after the events were accepted
    assert [run["function_id"] for run in platform.runs(order(platform, 7))] == ["f", "plain"]


def test_an_event_that_does_not_match_does_not_use_a_value(platform: Platform) -> None:
    deploy(platform, on={"event": "go", "expression": "data.yes"}, idempotency="'the only one'")
    events = [order(platform, 1, yes=yes) for yes in (False, True, True)]
    assert [started(platform, event) for event in events] == [0, 1, 0]
    assert "run_id" not in platform.event(events[0])["not_started"][0]


def test_reruns_ignore_idempotency(platform: Platform) -> None:
    deploy(platform)
    (run,) = platform.runs(order(platform, 7))
    again = platform.rerun(run["id"])
    assert again is not None
    platform.settle()
    assert platform.run(again)["status"] == "completed"
    assert started(platform, order(platform, 7)) == 0


@pytest.mark.parametrize(
    ("idempotency", "message"),
    [
        ("event.data.", "column"),
        ("steps.a.x", "steps"),
        ("async.data.x", "async"),
        ("x" * 3000, "2,048 bytes"),
        (7, "text"),
        (["event.id"], "text"),
    ],
)
def test_an_invalid_expression_is_refused(platform: Platform, idempotency: object, message: str) -> None:
    with pytest.raises(Refused) as refused:
        platform.deploy(function(idempotency=idempotency))
    (error,) = refused.value.errors
    assert (error["pointer"], message in error["message"]) == ("/idempotency", True), error

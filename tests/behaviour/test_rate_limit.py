"""`rate_limit`: at most so many runs start in any period."""

from __future__ import annotations

from typing import Any

import pytest

from tests.behaviour.words import Json, Platform, Refused, function, script

TWO_AN_HOUR = {"limit": 2, "period": "1h"}
PER_CUSTOMER = {**TWO_AN_HOUR, "key": "data.customer"}


def deploy(platform: Platform, rate_limit: Json = TWO_AN_HOUR, **fields: Any) -> None:
    platform.deploy(function(rate_limit=rate_limit, **fields))


def send(platform: Platform, user: Json | None = None, **data: Any) -> str:
    event = platform.send(data=data, user=user)
    platform.settle()
    return event


def started(platform: Platform, **data: Any) -> int:
    """How many runs one more event starts."""
    return len(platform.runs(send(platform, **data)))


def reason(platform: Platform, event: str) -> str:
    (miss,) = platform.event(event)["not_started"]
    assert miss["function_id"] == "f"
    text: str = miss["problem"]
    return text


# --- the window ------------------------------------------------------------------------------------------------------


def test_events_beyond_the_limit_start_nothing_and_show_when_the_next_start_is_possible(platform: Platform) -> None:
    deploy(platform)
    platform.deploy(function(id="other"))
    platform.travel("10m")
    assert [len(platform.runs(send(platform))) for _ in range(2)] == [2, 2]
    late = send(platform, order=7)
    (run,) = platform.runs(late)
    assert run["function_id"] == "other"
    assert platform.event(late)["data"] == {"order": 7}
    (miss,) = platform.event(late)["not_started"]
    text = "`rate_limit` is reached (2 starts in 1h); the next start is possible at 2026-06-01T11:10:30.000Z"
    assert (miss["function_id"], miss["expression"], "run_id" in miss) == ("f", "", False)
    assert miss["problem"] == text


def test_starts_at_a_time_and_a_period_later_may_both_happen(platform: Platform) -> None:
    deploy(platform)
    platform.travel("1m")
    assert started(platform) == 1
    platform.travel("20m")
    assert [started(platform) for _ in range(2)] == [1, 0]
    platform.travel("39m59s999ms")
    assert started(platform) == 0
    platform.travel("1ms")
    assert [started(platform) for _ in range(2)] == [1, 0], "the window slides: only the first start has left it"
    platform.travel("20m")
    assert [started(platform) for _ in range(2)] == [1, 0]


def test_events_in_one_request_obey_the_limit(platform: Platform) -> None:
    deploy(platform, {"limit": 25, "period": "1d"})
    ids = platform.send_raw(b"[" + b",".join(60 * [b'{"name": "go"}']) + b"]")
    platform.settle()
    assert sorted(len(platform.event(event)["not_started"]) for event in ids) == 25 * [0] + 35 * [1]
    assert len(platform.runs()) == 25


def test_each_value_of_the_key_has_a_limit_of_its_own(platform: Platform) -> None:
    deploy(platform, PER_CUSTOMER)
    assert [started(platform, customer=7) for _ in range(3)] == [1, 1, 0]
    assert [started(platform, customer=value) for value in (8, "7", 7.0)] == [1, 1, 0]
    late = send(platform, customer=7)
    assert platform.event(late)["not_started"][0]["expression"] == "data.customer"


def test_a_key_may_be_a_list(platform: Platform) -> None:
    deploy(platform, {"limit": 1, "period": "1h", "key": "[data.a, user.id]"})
    events = [send(platform, {"id": user}, a=a) for a, user in ((1, "x"), (1, "y"), (2, "x"), (1, "x"))]
    assert [len(platform.runs(event)) for event in events] == [1, 1, 1, 0]


def test_without_a_value_every_event_starts_a_run_that_shows_the_reason(platform: Platform) -> None:
    deploy(platform, {**PER_CUSTOMER, "limit": 1})
    for _ in range(3):
        (run,) = platform.runs(send(platform))
        assert run["problem"].startswith("rate_limit: ")
        assert run["problem"].endswith("; the run is not limited")


def test_the_limit_survives_a_restart(platform: Platform) -> None:
    deploy(platform)
    assert [started(platform) for _ in range(2)] == [1, 1]
    platform.restart("30m")
    assert started(platform) == 0
    platform.travel("30m")
    assert started(platform) == 1


def test_runs_count_however_they_end(platform: Platform) -> None:
    deploy(platform, steps={"a": {}, "b": {"after": {"step": "a", "wait": "2h"}}})
    send(platform, **script(a={"raise": "no"}))
    platform.cancel(platform.runs(send(platform))[0]["id"])
    assert started(platform) == 0


def test_a_new_version_continues_the_window(platform: Platform) -> None:
    deploy(platform)
    assert [started(platform) for _ in range(2)] == [1, 1]
    deploy(platform, {"limit": 3, "period": "1h"}, steps={"b": {}})
    assert [started(platform) for _ in range(2)] == [1, 0]


def test_a_function_that_is_deleted_and_registered_again_continues_the_window(platform: Platform) -> None:
    deploy(platform)
    assert [started(platform) for _ in range(2)] == [1, 1]
    platform.api("DELETE", "/v1/functions/f")
    deploy(platform, name="again")
    assert "rate_limit" in reason(platform, send(platform))


def test_ticks_of_a_cron_trigger_count(platform: Platform) -> None:
    deploy(platform, {"limit": 2, "period": "1d"}, on={"cron": "0 * * * *"})
    platform.travel("5h")
    platform.settle()
    assert len(platform.runs()) == 2


# --- together with other ways to start -------------------------------------------------------------------------------


def test_reruns_and_replays_are_neither_limited_nor_counted(platform: Platform) -> None:
    deploy(platform, {"limit": 1, "period": "1h"})
    event = send(platform)
    (run,) = platform.runs(event)
    assert platform.rerun(run["id"]) is not None
    platform.api("POST", "/v1/functions/f/replay", {"replay": "r1", "events": [{"id": event}]})
    platform.settle()
    assert len(platform.runs(event)) == 3
    platform.travel("1h")
    assert platform.rerun(run["id"]) is not None
    assert started(platform) == 1


def test_an_event_that_is_dropped_does_not_use_up_its_idempotency_value(platform: Platform) -> None:
    deploy(platform, {"limit": 1, "period": "1h"}, idempotency="data.order")
    assert started(platform, order=1) == 1
    dropped = send(platform, order=2)
    assert "rate_limit" in reason(platform, dropped)
    platform.travel("1h")
    assert [started(platform, order=2) for _ in range(2)] == [1, 0]


def test_an_event_whose_idempotency_value_is_known_does_not_count(platform: Platform) -> None:
    deploy(platform, idempotency="data.order")
    assert [started(platform, order=order) for order in (1, 1, 1, 2, 3)] == [1, 0, 0, 1, 0]


def test_a_duplicate_event_does_not_count(platform: Platform) -> None:
    deploy(platform)
    for _ in range(5):
        platform.send(id="once")
        platform.settle()
    assert [started(platform) for _ in range(2)] == [1, 0]


def test_an_event_that_does_not_match_does_not_count(platform: Platform) -> None:
    deploy(platform, on={"event": "go", "expression": "data.yes"})
    assert [started(platform, yes=yes) for yes in (False, False, True, True, True)] == [0, 0, 1, 1, 0]


def test_a_dropped_event_still_wakes_waits(platform: Platform) -> None:
    deploy(platform, {"limit": 1, "period": "1h"})
    wait = {"step": "$trigger", "async": {"event": "go", "ttl": "1d"}}
    platform.deploy(function({"a": {"after": wait}}, id="waits", on="begin"))
    send(platform)
    waiting = platform.send("begin")
    platform.settle()
    assert started(platform) == 0
    assert platform.runs(waiting)[0]["status"] == "completed"


def test_events_kept_during_a_pause_obey_the_limit_when_they_are_released(platform: Platform) -> None:
    deploy(platform)
    platform.api("POST", "/v1/functions/f/pause")
    platform.settle()
    events = [send(platform, n=n) for n in range(4)]
    platform.travel("5h")
    platform.api("POST", "/v1/functions/f/resume")
    platform.settle()
    assert [len(platform.runs(event)) for event in events] == [1, 1, 0, 0]
    assert "rate_limit" in reason(platform, events[3])
    assert started(platform) == 0
    platform.travel("1h")
    assert started(platform) == 1


def test_erasing_a_user_forgets_a_key_that_only_this_user_had(platform: Platform) -> None:
    deploy(platform, {"limit": 1, "period": "30d", "key": "data.mail"})
    assert len(platform.runs(send(platform, {"id": "ada"}, mail="ada@example.com"))) == 1
    platform.api("DELETE", "/v1/users?id=ada")
    assert started(platform, mail="ada@example.com") == 1


def test_erasing_a_user_does_not_let_others_exceed_the_limit(platform: Platform) -> None:
    deploy(platform, {"limit": 2, "period": "30d", "key": "data.region"})
    for user in ("ada", "bob"):
        assert len(platform.runs(send(platform, {"id": user}, region="eu"))) == 1
    platform.api("DELETE", "/v1/users?id=ada")
    assert started(platform, region="eu") == 0
    platform.api("DELETE", "/v1/users?id=bob")
    assert started(platform, region="eu") == 1


# --- definitions -----------------------------------------------------------------------------------------------------


def test_the_function_shows_its_rate_limit(platform: Platform) -> None:
    deploy(platform, PER_CUSTOMER, idempotency="event.id")
    shown = platform.api("GET", "/v1/functions/f")["flow_control"]
    assert shown == {"idempotency": "event.id", "rate_limit": PER_CUSTOMER}
    platform.deploy(function(id="plain"))
    assert platform.api("GET", "/v1/functions/plain")["flow_control"] == {}


@pytest.mark.parametrize(
    ("rate_limit", "pointer", "message"),
    [
        ({"period": "1h"}, "/rate_limit/limit", "missing"),
        ({"limit": 1}, "/rate_limit/period", "missing"),
        ({"limit": 0, "period": "1h"}, "/rate_limit/limit", "1"),
        ({"limit": 10_001, "period": "1h"}, "/rate_limit/limit", "10"),
        ({"limit": 1.5, "period": "1h"}, "/rate_limit/limit", "whole"),
        ({"limit": 1, "period": "0s"}, "/rate_limit/period", "0"),
        ({"limit": 1, "period": "367d"}, "/rate_limit/period", "366"),
        ({"limit": 1, "period": "1h", "key": "data."}, "/rate_limit/key", "column"),
        ({"limit": 1, "period": "1h", "key": "steps.a.x"}, "/rate_limit/key", "steps"),
        ({"limit": 1, "period": "1h", "burst": 1}, "/rate_limit/burst", "burst"),
        ("1/h", "/rate_limit", "object"),
    ],
)
def test_a_rate_limit_that_makes_no_sense_is_refused(
    platform: Platform, rate_limit: Any, pointer: str, message: str
) -> None:
    with pytest.raises(Refused) as refused:
        deploy(platform, rate_limit)
    (error,) = refused.value.errors
    assert (error["pointer"], message in error["message"]) == (pointer, True), error

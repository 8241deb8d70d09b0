"""Delays until a point in time: `wait: {until: ...}` on an edge."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.behaviour.words import START, Json, Platform, Refused, function, moment, script, statuses

DAY = timedelta(days=1)


def until(expression: str, step: str = "a", **edge: object) -> Json:
    return {"step": step, "wait": {"until": expression}, **edge}


def text_of(delay: timedelta) -> str:
    return (START + delay).isoformat(timespec="milliseconds")


def ms_of(delay: timedelta) -> int:
    return round((START + delay).timestamp() * 1000)


def only_run(platform: Platform, **sent: Any) -> Json:
    (run,) = platform.runs(platform.send(**sent))
    return run


def queued_at(run: Json, step_id: str) -> timedelta:
    """When the step's first attempt was queued, counted from the start of the test."""
    return moment(run["steps"][step_id]["attempts"][0]["queued_at"]) - START


# --- when ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "delay"),
    [
        ("timestamp(data.at)", timedelta(minutes=10)),
        ("timestamp(data.at) - duration('5m')", timedelta(minutes=5)),
        ("data.at", timedelta(minutes=10)),
        ("data.at_in_zone", timedelta(minutes=10)),
        ("data.exact", timedelta(days=3, milliseconds=7)),
        ("data.ms", timedelta(days=3)),
        ("double(data.ms)", timedelta(days=3)),
        ("event.ts + 3600000", timedelta(hours=1)),
        ("data.last", timedelta(days=366)),
    ],
)
def test_a_delay_lasts_until_a_time_to_the_millisecond(platform: Platform, expression: str, delay: timedelta) -> None:
    platform.deploy(function({"a": {}, "b": {"after": until(expression)}}))
    at = text_of(timedelta(minutes=10))
    zone = timedelta(hours=5, minutes=30)
    data = {
        "at": at.replace("+00:00", "Z"),
        "at_in_zone": text_of(timedelta(minutes=10) + zone).replace("+00:00", "+05:30"),
        "exact": text_of(timedelta(days=3, milliseconds=7)),
        "ms": ms_of(timedelta(days=3)),
        "last": ms_of(timedelta(days=366)),
    }
    run = only_run(platform, data=data)
    edge = run["steps"]["b"]["after"][0]
    assert (statuses(run), edge["state"]) == ({"a": "completed", "b": "waiting"}, "delayed")
    assert moment(edge["until"]) == START + delay
    platform.travel(f"{delay // timedelta(milliseconds=1) - 1}ms")
    assert statuses(platform.run(run["id"])) == {"a": "completed", "b": "waiting"}
    platform.travel("1ms")
    run = platform.run(run["id"])
    assert (run["status"], queued_at(run, "b")) == ("completed", delay)


@pytest.mark.parametrize(
    "expression", ["data.at", "event.ts", "event.ts - 1", "0", "timestamp('1999-12-31T23:59:59Z')", "-5"]
)
def test_a_time_in_the_past_means_at_once(platform: Platform, expression: str) -> None:
    platform.deploy(function({"a": {}, "b": {"after": until(expression)}, "c": "b"}))
    run = only_run(platform, data={"at": "2020-01-01T00:00:00Z"})
    edge = run["steps"]["b"]["after"][0]
    assert (run["status"], edge["status"], edge["state"]) == ("completed", "satisfied", "elapsed")
    assert queued_at(run, "b") == timedelta(0)


def test_the_expression_sees_the_event_and_the_steps_before_it_when_the_parent_ends(platform: Platform) -> None:
    steps = {"a": {}, "b": {"after": until("response.at")}, "c": {"after": until("steps.a.at + event.data.more", "b")}}
    platform.deploy(function(steps))
    at = ms_of(timedelta(hours=1))
    run = only_run(platform, data={"more": 60_000, **script(a={"return": {"at": at}})})
    platform.travel("2h")
    run = platform.run(run["id"])
    assert (queued_at(run, "b"), queued_at(run, "c")) == (timedelta(hours=1), timedelta(minutes=61))


def test_a_delay_after_a_failure_sees_its_error(platform: Platform) -> None:
    steps = {"a": {}, "b": {"after": until("int(errors.a.message) * 1000", on="failure")}}
    platform.deploy(function({**steps, "c": {"after": until("response.missing")}}))
    at = ms_of(timedelta(hours=1)) // 1000
    run = only_run(platform, data=script(a={"status": 404, "body": str(at)}))
    assert statuses(run) == {"a": "failed", "b": "cancelled", "c": "cancelled"}, "the message is no number"


def test_a_delay_on_a_trigger_edge_delays_the_first_step(platform: Platform) -> None:
    platform.deploy(function({"a": {"after": until("data.at", "$trigger")}}))
    run = only_run(platform, data={"at": text_of(DAY)})
    assert run["started_at"] is None
    platform.travel("1d")
    assert queued_at(platform.run(run["id"]), "a") == DAY


def test_the_time_is_evaluated_once(platform: Platform) -> None:
    """Steps that end later do not change it."""
    steps = {"a": {}, "slow": {"after": {"step": "a", "wait": "1h"}}, "b": {"after": until("event.ts + 7200000")}}
    platform.deploy(function(steps))
    run = only_run(platform)
    platform.travel("3h")
    assert queued_at(platform.run(run["id"]), "b") == timedelta(hours=2)


# --- with other fields of an edge ------------------------------------------------------------------------------------


def test_a_false_condition_needs_no_time(platform: Platform) -> None:
    steps = {
        "a": {},
        "b": {"after": until("data.missing", if_="false")},
        "c": {"after": until("data.missing", on="failure")},
    }
    steps["b"]["after"]["if"] = steps["b"]["after"].pop("if_")
    platform.deploy(function(steps))
    run = only_run(platform)
    assert (run["status"], statuses(run)) == ("completed", {"a": "completed", "b": "skipped", "c": "skipped"})


def test_a_wait_begins_at_the_time(platform: Platform) -> None:
    waits = {"event": "paid", "ttl": "1h"}
    steps = {
        "a": {},
        "yes": {"after": until("data.at", **{"async": waits})},
        "no": {"after": until("data.at", **{"async": {**waits, "onTimeout": True}})},
    }
    platform.deploy(function(steps))
    at = {"at": text_of(DAY)}
    first, second = only_run(platform, data=at), only_run(platform, data={"at": 0})
    edges = [run["steps"]["yes"]["after"][0] for run in (first, second)]
    assert [edge["state"] for edge in edges] == ["delayed", "awaiting"]
    assert [moment(edge["until"]) - START for edge in edges] == [DAY, timedelta(hours=1)]
    platform.travel("1d")
    platform.travel("59m")
    platform.send("paid")
    assert statuses(platform.run(first["id"])) == {"a": "completed", "yes": "completed", "no": "skipped"}
    assert statuses(platform.run(second["id"])) == {"a": "completed", "yes": "skipped", "no": "completed"}


def test_edges_with_the_same_time_go_on_together(platform: Platform) -> None:
    steps = {"a": {}, **{name: {"after": until("data.at")} for name in ("b", "c", "d")}}
    platform.deploy(function(steps))
    run = only_run(platform, data={"at": text_of(DAY)})
    platform.travel("1d")
    run = platform.run(run["id"])
    assert [queued_at(run, name) for name in ("b", "c", "d")] == [DAY] * 3


def test_a_first_join_ends_a_delay_that_is_no_longer_needed(platform: Platform) -> None:
    steps = {"a": {}, "b": {"after": [until("data.at"), {"step": "a", "wait": "1h"}], "join": "first"}}
    platform.deploy(function(steps))
    run = only_run(platform, data={"at": text_of(DAY)})
    platform.travel("1h")
    run = platform.run(run["id"])
    assert (run["status"], [edge["status"] for edge in run["steps"]["b"]["after"]]) == (
        "completed",
        ["dead", "satisfied"],
    )


# --- no time ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("data.missing", 'there is no key "missing"'),
        ("data.text", "the value is the text 'soon'; a time is a timestamp, an RFC 3339 text"),
        ("data.day", "the value is the text '2026-12-24'"),
        ("data.local", "the value is the text '2026-12-24T18:00:00'"),
        ("data.half", "the value is 0.5"),
        ("data.list", "the value is a list"),
        ("data.flag", "the value is a bool"),
        ("data.late", "is more than 366 days ahead"),
        ("data.far", "is more than 366 days ahead"),
    ],
)
def test_without_a_time_the_run_fails_as_with_a_condition_without_a_value(
    platform: Platform, expression: str, problem: str
) -> None:
    platform.deploy(function({"a": {}, "b": {"after": until(expression)}}))
    late = ms_of(timedelta(days=366, milliseconds=1))
    data = {"text": "soon", "day": "2026-12-24", "local": "2026-12-24T18:00:00", "half": 0.5, "list": [1], "flag": True}
    run = only_run(platform, data={**data, "late": late, "far": 10**18})
    assert (run["status"], statuses(run)) == ("failed", {"a": "completed", "b": "cancelled"})
    error = run["error"]
    assert (error["step"], error["kind"]) == ("b", "condition_failed")
    assert (
        f"cannot decide when `b` runs after `a`: `wait.until` of steps.b.after[0], `{expression}`" in error["message"]
    )
    assert problem in error["message"]
    shown = run["steps"]["b"]["after"][0]["problem"]
    assert (shown.startswith("wait.until: "), problem in shown) == (True, True)


def test_a_run_that_failed_without_a_time_can_be_rerun_after_a_push(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": {"after": until("data.missing")}}))
    run = only_run(platform)
    platform.deploy(function({"a": {}, "b": {"after": until("event.ts")}}))
    again = platform.api("POST", f"/v1/runs/{run['id']}/rerun", {"from_step": "b"})["id"]
    assert platform.run(again)["status"] == "completed"


# --- what happens meanwhile ------------------------------------------------------------------------------------------


def test_a_time_that_comes_during_downtime_is_over_after_the_restart(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": {"after": until("data.at")}}))
    run = only_run(platform, data={"at": text_of(DAY)})
    platform.restart("1h")
    assert statuses(platform.run(run["id"])) == {"a": "completed", "b": "waiting"}
    platform.restart("2d")
    assert platform.run(run["id"])["status"] == "completed"


def test_a_cancelled_run_does_not_go_on_at_the_time(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": {"after": until("data.at")}}))
    run = only_run(platform, data={"at": text_of(DAY)})
    platform.cancel(run["id"])
    platform.travel("2d")
    assert statuses(platform.run(run["id"])) == {"a": "completed", "b": "cancelled"}


def test_a_rerun_after_the_time_does_not_wait(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": {"after": until("data.at")}}))
    run = only_run(platform, data={"at": text_of(DAY)})
    platform.travel("2d")
    again = platform.rerun(run["id"])
    assert again is not None
    assert platform.run(again)["status"] == "completed"


@pytest.mark.parametrize(
    ("wait", "pointer", "message"),
    [
        ({}, "", "`until` is missing"),
        ({"until": ""}, "/until", ""),
        ({"until": 5}, "/until", ""),
        ({"until": "1 +"}, "/until", "column"),
        ({"until": "true"}, "/until", "the expression is a bool, which is no time"),
        ({"until": "duration('1h')"}, "/until", "the expression is a duration, which is no time"),
        ({"until": "'tomorrow'"}, "/until", "the value is the text 'tomorrow'"),
        ({"until": "steps.b.at"}, "/until", "has not run yet"),
        ({"until": "async.data.at"}, "/until", "async"),
        ({"until": "event.ts", "at": "x"}, "/at", "unknown field `at`"),
        (60, "", "must be text with a unit"),
        (["1h"], "", ""),
    ],
)
def test_an_invalid_time_is_refused_with_a_pointer(
    platform: Platform, wait: object, pointer: str, message: str
) -> None:
    with pytest.raises(Refused) as refused:
        platform.deploy(function({"a": {}, "b": {"after": {"step": "a", "wait": wait}}}))
    (error,) = refused.value.errors
    place = f"/steps/b/after/0/wait{pointer}"
    assert (error["pointer"] in (place, f"{place}/until"), message in error["message"]) == (True, True), error

"""`singleton`: one open run for each key of a function."""

from __future__ import annotations

from typing import Any

import pytest

from tests.behaviour.words import Json, Platform, Refused, function

SKIP, CANCEL = {"mode": "skip"}, {"mode": "cancel"}
WAITS: Json = {"a": {}, "b": {"after": {"step": "a", "wait": "1h"}}}


def deploy(platform: Platform, singleton: Json, steps: Json = WAITS, **fields: Any) -> None:
    platform.deploy(function(steps, singleton=singleton, **fields))


def send(platform: Platform, user: Json | None = None, **data: Any) -> str:
    event = platform.send(data=data, user=user)
    platform.settle()
    return event


def only(platform: Platform, event: str) -> Json:
    (run,) = platform.runs(event)
    return run


def states(platform: Platform, *events: str) -> list[str]:
    """The status of the run of each event; `none` if it has started none."""
    return [runs[0]["status"] if (runs := platform.runs(event)) else "none" for event in events]


# --- skip ------------------------------------------------------------------------------------------------------------


def test_while_a_run_is_open_further_events_start_none_and_name_it(platform: Platform) -> None:
    deploy(platform, {**SKIP, "key": "data.account"})
    platform.deploy(function(id="other"))
    first, again, other = send(platform, account=7), send(platform, account=7), send(platform, account=8)
    assert [run["function_id"] for run in platform.runs(again)] == ["other"]
    run = next(run for run in platform.runs(first) if run["function_id"] == "f")
    assert run["status"] == "running"
    assert sorted(run["function_id"] for run in platform.runs(other)) == ["f", "other"]
    (miss,) = platform.event(again)["not_started"]
    assert miss == {
        "function_id": "f",
        "expression": "data.account",
        "problem": f"`singleton`: run {run['id']} is open and has the same key",
        "run_id": run["id"],
    }


def test_when_the_run_has_ended_the_next_event_starts_one(platform: Platform) -> None:
    deploy(platform, SKIP)
    first, skipped = send(platform), send(platform)
    platform.travel("1h")
    later = send(platform)
    assert states(platform, first, skipped, later) == ["completed", "none", "running"]


def test_failed_and_cancelled_runs_are_not_open(platform: Platform) -> None:
    deploy(platform, SKIP)
    failed = send(platform, script={"a": [{"raise": "no"}]})
    cancelled = send(platform)
    platform.cancel(only(platform, cancelled)["id"])
    assert states(platform, failed, cancelled, send(platform)) == ["failed", "cancelled", "running"]


def test_of_several_events_in_one_request_one_starts_a_run(platform: Platform) -> None:
    deploy(platform, SKIP)
    ids = platform.send_raw(b"[" + b",".join(12 * [b'{"name": "go"}']) + b"]")
    platform.settle()
    assert sorted(states(platform, *ids)) == 11 * ["none"] + ["running"]


def test_an_open_run_survives_a_restart(platform: Platform) -> None:
    deploy(platform, SKIP)
    send(platform)
    platform.restart("10m")
    assert states(platform, send(platform)) == ["none"]
    platform.travel("50m")
    assert states(platform, send(platform)) == ["running"]


def test_a_skipped_event_uses_up_nothing_else(platform: Platform) -> None:
    limit = {"limit": 2, "period": "1d"}
    deploy(platform, SKIP, rate_limit=limit, idempotency="data.order")
    first = send(platform, order=1)
    skipped = [send(platform, order=2) for _ in range(5)]
    platform.travel("1h")
    later = send(platform, order=2)
    assert states(platform, first, *skipped, later) == ["completed", *5 * ["none"], "running"]
    assert "singleton" in platform.event(skipped[0])["not_started"][0]["problem"]


# --- cancel ----------------------------------------------------------------------------------------------------------


def test_a_later_event_cancels_the_open_run_which_names_its_successor(platform: Platform) -> None:
    deploy(platform, {**CANCEL, "key": "data.account"})
    first, other, second = send(platform, account=7), send(platform, account=8), send(platform, account=7)
    old, new = only(platform, first), only(platform, second)
    assert (old["status"], old["reason"], old["replaced_by"]) == ("cancelled", "singleton", new["id"])
    assert (old["cancelled_by"], old["timeout"]) == (None, None)
    assert (new["status"], new["reason"], new["replaced_by"]) == ("running", None, None)
    assert states(platform, other) == ["running"]
    assert platform.event(second)["not_started"] == []
    platform.travel("1h")
    assert states(platform, first, other, second) == ["cancelled", "completed", "completed"]


def test_the_event_about_the_cancelled_run_has_the_reason(platform: Platform) -> None:
    deploy(platform, CANCEL)
    platform.deploy(function(id="watch", on="stepwell/run.cancelled"))
    first, second = send(platform), send(platform)
    (event,) = platform.events("stepwell/run.cancelled")
    assert event["data"]["run_id"] == only(platform, first)["id"]
    assert (event["data"]["reason"], event["data"]["replaced_by"]) == ("singleton", only(platform, second)["id"])
    assert "timeout" not in event["data"]


def test_of_many_events_the_last_one_keeps_its_run(platform: Platform) -> None:
    deploy(platform, CANCEL)
    ids = platform.send_raw(b"[" + b",".join(8 * [b'{"name": "go"}']) + b"]")
    platform.settle()
    assert states(platform, *ids) == [*7 * ["cancelled"], "running"]


# --- keys ------------------------------------------------------------------------------------------------------------


def test_without_a_value_every_run_is_open_beside_others_and_shows_the_reason(platform: Platform) -> None:
    deploy(platform, {**SKIP, "key": "data.account"})
    runs = [only(platform, send(platform)) for _ in range(3)]
    assert [run["status"] for run in runs] == 3 * ["running"]
    assert all(run["problem"].startswith("singleton: ") for run in runs)
    assert all(run["problem"].endswith("; the run is open beside others") for run in runs)


def test_versions_share_their_keys(platform: Platform) -> None:
    deploy(platform, SKIP)
    first = send(platform)
    deploy(platform, SKIP, steps={"c": {}})
    assert states(platform, send(platform)) == ["none"]
    deploy(platform, CANCEL, steps={"d": {}})
    assert states(platform, send(platform), first) == ["completed", "cancelled"]


def test_a_function_that_is_deleted_and_registered_again_still_has_its_open_run(platform: Platform) -> None:
    deploy(platform, SKIP)
    first = send(platform)
    platform.api("DELETE", "/v1/functions/f")
    deploy(platform, SKIP, name="again")
    skipped = send(platform)
    assert states(platform, skipped) == ["none"]
    assert platform.event(skipped)["not_started"][0]["run_id"] == only(platform, first)["id"]
    platform.travel("1h")
    assert states(platform, first, send(platform)) == ["completed", "running"]


def test_erasing_a_user_ends_the_run_and_frees_the_key(platform: Platform) -> None:
    deploy(platform, {**SKIP, "key": "data.mail"})
    assert states(platform, send(platform, {"id": "ada"}, mail="ada@example.com")) == ["running"]
    platform.api("DELETE", "/v1/users?id=ada")
    assert states(platform, send(platform, mail="ada@example.com")) == ["running"]


# --- other ways to start ---------------------------------------------------------------------------------------------


def test_a_rerun_beside_an_open_run_is_refused_with_the_id_of_that_run(platform: Platform) -> None:
    deploy(platform, SKIP)
    first = only(platform, send(platform))
    platform.travel("1h")
    open_run = only(platform, send(platform))
    with pytest.raises(Refused) as refused:
        platform.api("POST", f"/v1/runs/{first['id']}/rerun")
    assert refused.value.status == 409
    assert f"run {open_run['id']} is open and has the same key; cancel that run, or rerun" in str(refused.value)
    platform.travel("1h")
    again = platform.api("POST", f"/v1/runs/{first['id']}/rerun")
    platform.settle()
    assert platform.run(again["id"])["status"] == "running"
    assert states(platform, send(platform)) == ["none"], "the rerun is the open run"


def test_a_rerun_cancels_the_open_run(platform: Platform) -> None:
    deploy(platform, CANCEL)
    first = only(platform, send(platform))
    again = platform.api("POST", f"/v1/runs/{first['id']}/rerun")
    platform.settle()
    old = platform.run(first["id"])
    assert (old["status"], old["replaced_by"]) == ("cancelled", again["id"])
    assert platform.run(again["id"])["status"] == "running"


def replay(platform: Platform, *events: str) -> list[Json]:
    body = {"replay": "r1", "events": [{"id": event} for event in events]}
    found: list[Json] = platform.api("POST", "/v1/functions/f/replay", body)["events"]
    platform.settle()
    return found


def test_a_replay_starts_one_run_for_each_key_and_names_the_open_one(platform: Platform) -> None:
    deploy(platform, {**SKIP, "key": "data.account"})
    events = [send(platform, account=n) for n in (7, 8)]
    platform.travel("1h")
    events.append(send(platform, account=7))
    open_run = only(platform, events[2])["id"]
    refused, started, also_refused = replay(platform, *events)
    reason = f"`singleton`: run {open_run} is open and has the same key"
    for answer, event in ((refused, events[0]), (also_refused, events[2])):
        assert answer == {"event_id": event, "status": "not started", "run_id": None, "problem": reason}
    assert started["status"] == "started"
    assert platform.run(started["run_id"])["status"] == "running"
    assert [answer["status"] for answer in replay(platform, *events)] == ["not started", "already", "not started"]


def test_a_replay_cancels_open_runs(platform: Platform) -> None:
    deploy(platform, CANCEL)
    first, second = send(platform), send(platform)
    one, two = replay(platform, first, second)
    assert states(platform, first) == ["cancelled"]
    assert [run["status"] for run in platform.runs(second)] == ["cancelled", "running"]
    assert platform.run(one["run_id"])["replaced_by"] == two["run_id"]


def test_events_kept_during_a_pause_are_skipped_beside_an_open_run(platform: Platform) -> None:
    deploy(platform, SKIP)
    platform.api("POST", "/v1/functions/f/pause")
    platform.settle()
    events = [send(platform, n=n) for n in range(3)]
    platform.api("POST", "/v1/functions/f/resume")
    platform.settle()
    assert states(platform, *events) == ["running", "none", "none"]


def test_of_events_kept_during_a_pause_the_last_one_keeps_its_run(platform: Platform) -> None:
    deploy(platform, CANCEL)
    platform.api("POST", "/v1/functions/f/pause")
    platform.settle()
    events = [send(platform, n=n) for n in range(3)]
    platform.api("POST", "/v1/functions/f/resume")
    platform.settle()
    assert states(platform, *events) == ["cancelled", "cancelled", "running"]


def test_ticks_are_skipped_while_a_run_is_open(platform: Platform) -> None:
    deploy(platform, SKIP, steps={"a": {}, "b": {"after": {"step": "a", "wait": "150m"}}}, on={"cron": "0 * * * *"})
    platform.travel("5h")
    assert sorted(run["status"] for run in platform.runs()) == ["completed", "running"]


# --- definitions -----------------------------------------------------------------------------------------------------


def test_the_function_shows_its_singleton(platform: Platform) -> None:
    deploy(platform, {**SKIP, "key": "user.id"})
    assert platform.api("GET", "/v1/functions/f")["flow_control"] == {"singleton": {"mode": "skip", "key": "user.id"}}


@pytest.mark.parametrize(
    ("singleton", "pointer", "message"),
    [
        ({}, "/singleton/mode", "missing"),
        ({"mode": "queue"}, "/singleton/mode", "skip"),
        ({"mode": "skip", "key": "data."}, "/singleton/key", "column"),
        ({"mode": "skip", "key": "steps.a.x"}, "/singleton/key", "steps"),
        ({"mode": "skip", "keys": "data.x"}, "/singleton/keys", "key"),
        (True, "/singleton", "object"),
    ],
)
def test_a_singleton_that_makes_no_sense_is_refused(
    platform: Platform, singleton: Any, pointer: str, message: str
) -> None:
    with pytest.raises(Refused) as refused:
        deploy(platform, singleton)
    (error,) = refused.value.errors
    assert (error["pointer"], message in error["message"]) == (pointer, True), error

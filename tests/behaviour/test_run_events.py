"""The events that the engine emits when a run ends."""

from __future__ import annotations

import pytest

from tests.behaviour.words import START, Json, Platform, function, has, moment, script, statuses

NO = {"raise": "no"}


def end_events(platform: Platform) -> list[str]:
    return [event["name"] for event in platform.events() if event["name"].startswith("stepwell/run.")]


@pytest.mark.parametrize(
    ("act", "status", "error"),
    [
        ({}, "completed", None),
        (NO, "failed", {"step": "a", "kind": "exception", "message": "RuntimeError: no", "status": None}),
    ],
)
def test_the_end_of_a_run_emits_an_event(platform: Platform, act: Json, status: str, error: Json | None) -> None:
    version = platform.deploy(function(id="f"))
    event = platform.send(data=script(a=act), user={"external_id": "u-1"})
    (run,) = platform.runs(event)
    (end,) = [event for event in platform.events() if event["name"].startswith("stepwell/")]
    assert end["name"] == f"stepwell/run.{status}"
    assert end["data"] == {
        "run_id": run["id"],
        "function_id": "f",
        "function_version": version,
        "event_id": event,
        "event_name": "go",
        "error": error,
    }
    assert end["user"] == {"external_id": "u-1"}
    assert moment(end["accepted_at"]) == START


def test_a_cancelled_run_emits_an_event(platform: Platform) -> None:
    platform.deploy(function())
    run_id = platform.run_of(platform.send(data=script(a={"wait_for": "/nonexistent"})))
    platform.wait(run_id, has("a", "running"))
    platform.cancel(run_id)
    platform.settle()
    (end,) = platform.events("stepwell/run.cancelled")
    assert (end["data"]["run_id"], end["data"]["error"]) == (run_id, None)
    assert "cancelled_by" not in end["data"], "the run was not cancelled by an event"


def test_a_run_whose_steps_were_all_skipped_emits_an_event(platform: Platform) -> None:
    platform.deploy(function({"a": {"after": {"step": "$trigger", "if": "false"}}}))
    platform.runs(platform.send())
    assert end_events(platform) == ["stepwell/run.completed"]


def test_each_run_emits_exactly_one_end_event(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": {}}))
    platform.runs(platform.send(data=script(a=NO, b=NO)))
    platform.restart()
    platform.travel("1h")
    assert end_events(platform) == ["stepwell/run.failed"]


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_a_function_can_be_triggered_by_the_end_of_a_run(platform: Platform, status: str) -> None:
    steps = {"a": {}, "b": {"after": {"step": "$trigger", "wait": "1h"}}}
    platform.deploy(function(steps, id="watched"))
    expression = "data.function_id == 'watched'"
    platform.deploy(function(id="watcher", on={"event": f"stepwell/run.{status}", "expression": expression}))
    (run,) = platform.runs(platform.send(data=script(a=NO if status == "failed" else {})))[:1]
    if status == "cancelled":
        platform.cancel(run["id"])
    platform.travel("1h")
    (end,) = platform.events(f"stepwell/run.{status}")
    (watcher,) = platform.runs(end["id"])
    assert (watcher["function_id"], watcher["status"]) == ("watcher", "completed")


def test_a_run_that_an_end_event_started_emits_no_event(platform: Platform) -> None:
    platform.deploy(function(id="watched"))
    platform.deploy(function(id="watcher", on=[{"event": "stepwell/run.completed"}, {"event": "stepwell/run.failed"}]))
    platform.send()
    assert sorted(run["function_id"] for run in platform.runs()) == ["watched", "watcher"]
    assert end_events(platform) == ["stepwell/run.completed"]


def test_a_function_that_starts_on_failures_and_fails_causes_no_loop(platform: Platform) -> None:
    code = "def handler(event, context):\n    raise ValueError(event['event']['name'])\n"
    steps = {"a": {"runtime": {"type": "lambda", "handler": "fails.handler"}}}
    platform.deploy(function(steps, on=[{"event": "go"}, {"event": "stepwell/run.failed"}]), {"steps/fails.py": code})
    platform.send()
    assert [run["status"] for run in platform.runs()] == ["failed", "failed"]
    assert end_events(platform) == ["stepwell/run.failed"]


def test_a_rerun_of_a_run_that_an_end_event_started_emits_no_event(platform: Platform) -> None:
    platform.deploy(function(id="watched"))
    platform.deploy(function(id="watcher", on="stepwell/run.completed"))
    platform.send()
    watcher = next(run for run in platform.runs() if run["function_id"] == "watcher")
    platform.rerun(watcher["id"])
    assert len(platform.runs()) == 3
    assert end_events(platform) == ["stepwell/run.completed"]


def test_a_function_can_await_the_end_of_another_functions_run(platform: Platform) -> None:
    platform.deploy(function({"work": {"after": {"step": "$trigger", "wait": "10m"}}}, id="worker", on="work"))
    match = "async.data.function_id == 'worker' && async.data.event_id == response.sent"
    wait = {"event": "stepwell/run.completed", "match": match, "ttl": "1h"}
    platform.deploy(function({"order": {}, "use": {"after": {"step": "order", "async": wait}}}, id="waiter"))
    other, awaited = platform.send("work"), "work-2"
    event = platform.send(data=script(order={"return": {"sent": awaited}}, use={"input": True}))
    (run,) = platform.runs(event)
    platform.travel("10m")  # the run of the other worker ends
    assert platform.runs(other)[0]["status"] == "completed"
    assert statuses(platform.run(run["id"]))["use"] == "waiting"
    platform.send("work", id=awaited)
    platform.travel("10m")
    run = platform.run(run["id"])
    assert run["status"] == "completed"
    worker = platform.runs(awaited)[0]
    assert run["output"]["use"]["async"]["data"]["run_id"] == worker["id"]


def test_a_wait_is_not_satisfied_by_the_end_of_its_own_run(platform: Platform) -> None:
    """A run that waits for its own end would wait forever: it cannot end before its waits."""
    wait = {"event": "stepwell/run.completed", "ttl": "1h", "onTimeout": True}
    platform.deploy(function({"a": {}, "b": {"after": {"step": "a", "async": wait}}}))
    (run,) = platform.runs(platform.send())
    platform.travel("1h")
    assert platform.run(run["id"])["status"] == "completed"
    assert end_events(platform) == ["stepwell/run.completed"]

"""Cancelling a run: in every state of its steps, permanently, and with all processes that it has started."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.behaviour.words import Json, Platform, function, has, script, statuses

NEVER = {"wait_for": "/nonexistent"}


def cancelled(platform: Platform, run_id: str) -> Json:
    platform.cancel(run_id)
    run = platform.run(run_id)
    assert run["status"] == "cancelled"
    assert run["ended_at"] is not None
    assert run["output"] is None
    return run


def attempt_statuses(run: Json, step_id: str = "a") -> list[str]:
    return [attempt["status"] for attempt in run["steps"][step_id]["attempts"]]


def check_unchanged(platform: Platform, run: Json) -> None:
    """Checks that nothing changes an ended run, however much time passes."""
    platform.settle()
    platform.travel("30d")
    assert platform.run(run["id"]) == run


# --- in every state --------------------------------------------------------------------------------------------------


def test_a_running_step_is_cancelled_at_once(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": "a"}))
    run_id = platform.run_of(platform.send(data=script(a=NEVER)))
    platform.wait(run_id, has("a", "running"))
    run = cancelled(platform, run_id)
    assert statuses(run) == {"a": "cancelled", "b": "cancelled"}
    assert attempt_statuses(run) == ["cancelled"]
    check_unchanged(platform, run)


def test_queued_steps_are_cancelled_and_never_start(platform: Platform, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    steps = [f"s{i}" for i in range(60)]
    platform.deploy(function({step: {} for step in steps}))
    event = platform.send(data=script(**{step: {"touch": str(trace), **NEVER} for step in steps}))
    run_id = platform.run_of(event)
    run = platform.wait(run_id, lambda run: "running" in statuses(run).values())
    queued = {step for step, status in statuses(run).items() if status == "queued"}
    run = cancelled(platform, run_id)
    assert set(statuses(run).values()) == {"cancelled"}
    check_unchanged(platform, run)
    started = {line.split()[0] for line in trace.read_text().splitlines()} if trace.exists() else set()
    assert not started & queued


def test_a_retrying_step_is_cancelled(platform: Platform) -> None:
    platform.deploy(function({"a": {"retries": {"attempts": 4}}, "b": "a"}))
    (run,) = platform.runs(platform.send(data=script(a=[{"raise": "no"}, {}])))
    assert statuses(run) == {"a": "retrying", "b": "pending"}
    run = cancelled(platform, run["id"])
    assert statuses(run) == {"a": "cancelled", "b": "cancelled"}
    assert attempt_statuses(run) == ["failed"]
    check_unchanged(platform, run)


def test_a_delayed_step_is_cancelled(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": {"after": {"step": "a", "wait": "1h"}}}))
    (run,) = platform.runs(platform.send())
    run = cancelled(platform, run["id"])
    assert statuses(run) == {"a": "completed", "b": "cancelled"}
    assert run["steps"]["b"]["after"][0]["status"] == "dead"
    assert run["steps"]["a"]["output"] == {"step": "a"}
    check_unchanged(platform, run)


@pytest.mark.parametrize("on_timeout", [False, True])
def test_a_waiting_step_is_cancelled_and_no_event_resumes_it(platform: Platform, on_timeout: bool) -> None:
    wait = {"event": "paid", "ttl": "1h", "onTimeout": on_timeout}
    platform.deploy(function({"a": {}, "b": {"after": {"step": "a", "async": wait}}}))
    (run,) = platform.runs(platform.send())
    assert statuses(run)["b"] == "waiting"
    run = cancelled(platform, run["id"])
    assert statuses(run) == {"a": "completed", "b": "cancelled"}
    platform.send("paid")
    check_unchanged(platform, run)


def test_ended_steps_keep_their_status(platform: Platform) -> None:
    steps = {
        "done": {},
        "failed": {},
        "handler": {"after": {"step": "failed", "on": "failure"}},
        "skipped": {"after": {"step": "done", "if": "false"}},
        "waiting": {"after": {"step": "done", "wait": "1h"}},
    }
    platform.deploy(function(steps))
    (run,) = platform.runs(platform.send(data=script(failed={"raise": "no"})))
    run = cancelled(platform, run["id"])
    assert statuses(run) == {
        "done": "completed",
        "failed": "failed",
        "handler": "completed",
        "skipped": "skipped",
        "waiting": "cancelled",
    }
    assert run["error"] is None


# --- permanently -----------------------------------------------------------------------------------------------------


def test_failure_edges_do_not_run_after_a_cancel(platform: Platform) -> None:
    after = [{"step": "a", "on": "failure"}, {"step": "a", "on": "always"}]
    platform.deploy(function({"a": {}, "b": {"after": after}}))
    run_id = platform.run_of(platform.send(data=script(a=NEVER)))
    platform.wait(run_id, has("a", "running"))
    run = cancelled(platform, run_id)
    assert statuses(run) == {"a": "cancelled", "b": "cancelled"}
    check_unchanged(platform, run)


def test_a_late_outcome_changes_nothing(platform: Platform, tmp_path: Path) -> None:
    """The step is about to return when it is cancelled."""
    gate = tmp_path / "gate"
    platform.deploy(function({"a": {}, "b": "a"}))
    run_ids = [platform.run_of(platform.send(data=script(a={"wait_for": str(gate)}))) for _ in range(3)]
    for run_id in run_ids:
        platform.wait(run_id, has("a", "running"))
    gate.touch()
    for run_id in run_ids:
        platform.cancel(run_id)
        run = platform.run(run_id)
        assert run["status"] in ("cancelled", "completed")
        check_unchanged(platform, run)


def test_cancelling_twice_changes_nothing(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": {"after": {"step": "a", "wait": "1h"}}}))
    (run,) = platform.runs(platform.send())
    run = cancelled(platform, run["id"])
    platform.travel("1m")
    platform.cancel(run["id"])
    assert platform.run(run["id"]) == run
    assert len(platform.events("stepwell/run.cancelled")) == 1


@pytest.mark.parametrize(("act", "status"), [({}, "completed"), ({"raise": "no"}, "failed")])
def test_a_run_that_has_ended_cannot_be_cancelled(platform: Platform, act: Json, status: str) -> None:
    platform.deploy(function())
    (run,) = platform.runs(platform.send(data=script(a=act)))
    platform.cancel(run["id"])
    platform.settle()
    assert run["status"] == status
    assert platform.run(run["id"]) == run
    assert platform.events("stepwell/run.cancelled") == []


def test_a_restart_does_not_bring_a_cancelled_run_back(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": {"after": {"step": "$trigger", "wait": "1h"}}}))
    run_id = platform.run_of(platform.send(data=script(a=NEVER)))
    platform.wait(run_id, has("a", "running"))
    run = cancelled(platform, run_id)
    platform.restart("2h")
    check_unchanged(platform, run)


def test_cancelling_one_run_leaves_the_others_alone(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": {"after": {"step": "a", "wait": "1h"}}}))
    first, second = platform.send(), platform.send()
    cancelled(platform, platform.runs(first)[0]["id"])
    platform.travel("1h")
    assert platform.runs(second)[0]["status"] == "completed"


def test_a_cancelled_run_emits_one_event(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": {"after": {"step": "a", "wait": "1h"}}}, id="f"))
    event = platform.send(user={"id": "u"})
    (run,) = platform.runs(event)
    cancelled(platform, run["id"])
    (end,) = platform.events("stepwell/run.cancelled")
    assert (end["data"]["run_id"], end["data"]["function_id"]) == (run["id"], "f")
    assert end["user"] == {"id": "u"}


# --- processes -------------------------------------------------------------------------------------------------------


def has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_cancelling_a_run_kills_the_processes_of_its_programs(platform: Platform, tmp_path: Path) -> None:
    """On AWS, a cancel cannot stop a Lambda. The processes are killed at the step's timeout."""
    pids = tmp_path / "pids"
    program = f"#!/bin/sh\ntrap '' TERM\nsleep 600 &\necho $$ $! > {pids}.new\nmv {pids}.new {pids}\nwait\n"
    step = {"path": "file://steps/hang", "runtime": {"type": "lambda", "command": ["./run.sh"]}}
    step["timeout"] = {"local": "15m", "aws": "1s"}[platform.name]
    platform.deploy(function({"a": step}), {"steps/hang/run.sh": program})
    run_id = platform.run_of(platform.send())
    platform.wait(run_id, lambda run: pids.exists())
    processes = [int(pid) for pid in pids.read_text().split()]
    assert not any(has_ended(pid) for pid in processes)
    cancelled(platform, run_id)
    platform.settle()
    deadline = time.monotonic() + 10
    while not all(has_ended(pid) for pid in processes):
        assert time.monotonic() < deadline, "the processes are still running"
    platform.settle()
    assert platform.run(run_id)["status"] == "cancelled"  # the later outcome changed nothing


def test_cancelling_a_handler_frees_its_slot(platform: Platform) -> None:
    platform.deploy(function())
    for _ in range(9):  # more than can run at a time
        run_id = platform.run_of(platform.send(data=script(a=NEVER)))
        platform.wait(run_id, has("a", "running"))
        cancelled(platform, run_id)
    (run,) = platform.runs(platform.send())
    assert run["status"] == "completed"


def test_the_log_of_a_cancelled_attempt_is_kept(platform: Platform) -> None:
    """On AWS, the log appears when the Lambda has ended: only then is known which log belongs to the attempt."""
    platform.deploy(function({"a": {"timeout": {"local": "15m", "aws": "2s"}[platform.name]}}))
    run_id = platform.run_of(platform.send(data=script(a={"log": "I was here", **NEVER})))
    if platform.name == "aws":
        platform.wait(run_id, has("a", "running"))
        assert _logs(cancelled(platform, run_id)) == ""
        ended = platform.wait(run_id, lambda run: "I was here" in _logs(run))
        assert (ended["status"], ended["steps"]["a"]["attempts"][0]["status"]) == ("cancelled", "cancelled")
        return
    platform.wait(run_id, lambda run: bool(run["steps"]["a"]["attempts"]) and "here" in _logs(run))
    assert "I was here" in _logs(cancelled(platform, run_id))


def _logs(run: Json) -> str:
    text: str = run["steps"]["a"]["attempts"][0]["logs"]
    return text

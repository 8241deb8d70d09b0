"""Retries: which failures are retried, when, and how often; and lost attempts."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from tests.behaviour.words import START, Json, Platform, function, has, moment, script, statuses

NO = {"raise": "no"}


def retried(attempts: int = 4, **step: object) -> Json:
    return {"retries": {"attempts": attempts}, **step}


def attempts(run: Json, step_id: str = "a") -> list[tuple[int, str]]:
    return [(attempt["attempt"], attempt["status"]) for attempt in run["steps"][step_id]["attempts"]]


def until_next(run: Json, step_id: str = "a") -> timedelta:
    """The time from the end of the newest attempt to the next one."""
    step = run["steps"][step_id]
    return moment(step["next_attempt_at"]) - moment(step["attempts"][-1]["ended_at"])


# --- how often -------------------------------------------------------------------------------------------------------


def test_a_step_is_retried_until_it_succeeds(platform: Platform) -> None:
    platform.deploy(function({"a": retried(), "b": "a"}))
    (run,) = platform.runs(platform.send(data=script(a=[NO, {"status": 503}, {"return": "at last"}])))
    assert (run["status"], statuses(run)) == ("running", {"a": "retrying", "b": "pending"})
    platform.travel("1h")
    run = platform.run(run["id"])
    assert (run["status"], statuses(run)) == ("completed", {"a": "completed", "b": "completed"})
    assert attempts(run) == [(1, "failed"), (2, "failed"), (3, "completed")]
    assert run["steps"]["a"]["output"] == "at last"
    assert run["steps"]["a"]["next_attempt_at"] is None


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_step_fails_after_its_last_retry(platform: Platform, retries: int) -> None:
    platform.deploy(function({"a": retried(retries)}))
    (run,) = platform.runs(platform.send(data=script(a=NO)))
    platform.travel("1d")
    run = platform.run(run["id"])
    assert (run["status"], statuses(run)) == ("failed", {"a": "failed"})
    assert attempts(run) == [(n, "failed") for n in range(1, retries + 2)]


def test_a_step_is_retried_four_times_by_default(platform: Platform) -> None:
    definition = function({"a": {}})
    del definition["steps"]["a"]["retries"]
    platform.deploy(definition)
    (run,) = platform.runs(platform.send(data=script(a=NO)))
    platform.travel("1d")
    assert len(attempts(platform.run(run["id"]))) == 5


@pytest.mark.kind("an attempt may run twice")
def test_retries_get_the_same_input_except_for_the_attempts_number(platform: Platform, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    code = f"""
import json
def handler(event, context):
    with open({str(seen)!r}, "a") as file:
        print(json.dumps(event), file=file)
    return {{"status": 500}}
"""
    runtime = {"type": "lambda", "handler": "seen.handler"}
    step = retried(2, runtime=runtime, after=["a", "quick"], join="first")
    platform.deploy(function({"a": {}, "quick": {}, "b": step}), {"steps/seen.py": code})
    (run,) = platform.runs(platform.send(data=script(a={})))
    platform.travel("1h")
    inputs = [json.loads(line) for line in seen.read_text().splitlines()]
    assert [document["ctx"].pop("attempt") for document in inputs] == [1, 2, 3]
    for document in inputs:
        document["ctx"].pop("token", None)  # on AWS, each attempt has its own
    assert inputs[0] == inputs[1] == inputs[2]
    assert run["id"] == inputs[0]["ctx"]["run_id"]


# --- which failures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["status", "statusCode"])
def test_the_status_decides_whether_a_failure_is_retried(platform: Platform, field: str) -> None:
    final, again = (400, 401, 404, 409, 422, 499), (408, 425, 429, 500, 502, 503, 599)
    platform.deploy(function({"a": retried(1)}))
    for status in (*final, *again):
        platform.send(data=script(a={"return": {field: status}}))
    found = {run["steps"]["a"]["attempts"][0]["error"]["status"]: statuses(run)["a"] for run in platform.runs()}
    assert found == {**dict.fromkeys(final, "failed"), **dict.fromkeys(again, "retrying")}


def test_a_value_that_is_not_a_failure_status_is_an_output(platform: Platform) -> None:
    outputs = [{"status": 399}, {"status": 600}, {"status": "500"}, {"status": True}, {"status": 500.5}, [500], 500]
    platform.deploy(function({"a": retried(1)}))
    for output in outputs:
        platform.send(data=script(a={"return": output}))
    assert [run["output"] for run in platform.runs()] == [{"a": output} for output in outputs]


@pytest.mark.parametrize(("act", "kind"), [(NO, "exception"), ({"crash": 3}, "crash"), ({"crash": 0}, "crash")])
def test_a_handler_that_raises_or_dies_is_retried(platform: Platform, act: Json, kind: str) -> None:
    platform.deploy(function({"a": retried(1)}))
    (run,) = platform.runs(platform.send(data=script(a=[act, {}])))
    assert run["steps"]["a"]["attempts"][0]["error"]["kind"] == kind
    platform.travel("1m")
    assert attempts(platform.run(run["id"])) == [(1, "failed"), (2, "completed")]


@pytest.mark.parametrize("signal", [9, 11])
def test_a_handler_whose_process_is_killed_is_retried(platform: Platform, signal: int) -> None:
    code = f"""
import os
def handler(event, context):
    if event["ctx"]["attempt"] == 1:
        os.kill(os.getpid(), {signal})
"""
    platform.deploy(
        function({"a": retried(1, runtime={"type": "lambda", "handler": "dies.handler"})}), {"steps/dies.py": code}
    )
    (run,) = platform.runs(platform.send())
    assert run["steps"]["a"]["attempts"][0]["error"]["kind"] == "crash"
    platform.travel("1m")
    assert platform.run(run["id"])["status"] == "completed"


def test_a_timeout_is_retried_and_is_per_attempt(platform: Platform, tmp_path: Path) -> None:
    platform.deploy(function({"a": retried(2, timeout="300ms")}))
    hangs = {"wait_for": str(tmp_path / "never")}
    (run,) = platform.runs(platform.send(data=script(a=[hangs, hangs, {}])))
    assert run["steps"]["a"]["attempts"][0]["error"]["kind"] == "timeout"
    platform.travel("10m")
    assert attempts(platform.run(run["id"])) == [(1, "failed"), (2, "failed"), (3, "completed")]


# --- when ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "delay"),
    [
        (7, timedelta(seconds=7)),
        (0.25, timedelta(milliseconds=250)),
        ("90", timedelta(seconds=90)),
        ("1h30m", timedelta(minutes=90)),
        (7200, timedelta(hours=2)),  # more than the maximum of the backoff
    ],
)
def test_retry_after_sets_the_delay_exactly(platform: Platform, value: object, delay: timedelta) -> None:
    platform.deploy(function({"a": retried(2)}))
    (run,) = platform.runs(platform.send(data=script(a=[{"status": 429, "retry_after": value}, {}])))
    assert until_next(run) == delay
    milliseconds = round(delay.total_seconds() * 1000)
    platform.travel(f"{milliseconds - 1}ms")
    assert statuses(platform.run(run["id"])) == {"a": "retrying"}
    platform.travel("1ms")
    run = platform.run(run["id"])
    assert statuses(run) == {"a": "completed"}
    assert moment(run["steps"]["a"]["attempts"][1]["started_at"]) == START + delay


def test_an_invalid_retry_after_is_ignored(platform: Platform) -> None:
    platform.deploy(function({"a": retried(2)}))
    values: list[object] = ["soon", -1, None, True, [1], {}]
    for value in values:
        platform.send(data=script(a={"status": 429, "retry_after": value}))
    for run in platform.runs():
        assert timedelta(seconds=8.5) <= until_next(run) <= timedelta(seconds=11.5)


def test_retry_after_does_not_make_a_final_failure_retried(platform: Platform) -> None:
    platform.deploy(function({"a": retried(2)}))
    (run,) = platform.runs(platform.send(data=script(a={"status": 404, "retry_after": 1})))
    assert run["status"] == "failed"


def test_the_delays_grow_by_the_factor_up_to_the_maximum(platform: Platform) -> None:
    backoff = {"initial": "10s", "factor": 3, "max": "1m", "jitter": 0.1}
    platform.deploy(function({"a": {"retries": {"attempts": 4, "backoff": backoff}}}))
    (run,) = platform.runs(platform.send(data=script(a=NO)))
    for seconds in (10, 30, 60, 60):
        delay = until_next(run)
        assert 0.9 * seconds <= delay.total_seconds() <= 1.1 * seconds
        platform.travel(f"{round(delay.total_seconds() * 1000)}ms")
        run = platform.run(run["id"])
    assert run["status"] == "failed"


def test_the_delays_of_different_runs_differ(platform: Platform) -> None:
    platform.deploy(function({"a": retried(1)}))
    for _ in range(5):
        platform.send(data=script(a=NO))
    delays = {until_next(run) for run in platform.runs()}
    assert len(delays) > 1
    assert all(timedelta(seconds=8.5) <= delay <= timedelta(seconds=11.5) for delay in delays)


def test_without_jitter_the_delay_is_exact(platform: Platform) -> None:
    backoff = {"initial": "250ms", "factor": 1, "jitter": 0}
    platform.deploy(function({"a": {"retries": {"attempts": 20, "backoff": backoff}}}))
    (run,) = platform.runs(platform.send(data=script(a=NO)))
    platform.travel("4999ms")
    assert len(attempts(platform.run(run["id"]))) == 20
    platform.travel("1ms")
    run = platform.run(run["id"])
    assert len(attempts(run)) == 21
    assert moment(run["ended_at"]) == START + timedelta(seconds=5)


@pytest.mark.parametrize("downtime", ["1s", "1h"])
def test_a_retry_survives_a_restart(platform: Platform, downtime: str) -> None:
    platform.deploy(function({"a": retried(1)}))
    (run,) = platform.runs(platform.send(data=script(a=[NO, {}])))
    platform.restart(downtime)
    platform.settle()
    assert statuses(platform.run(run["id"])) == {"a": "retrying" if downtime == "1s" else "completed"}
    platform.travel("1m")
    assert attempts(platform.run(run["id"])) == [(1, "failed"), (2, "completed")]


# --- lost attempts ---------------------------------------------------------------------------------------------------


def lose(platform: Platform, run_id: str, number: int) -> None:
    """Stops the server while this attempt runs."""
    platform.wait(run_id, lambda run: (number, "running") in attempts(run))
    platform.restart()


def test_a_lost_attempt_is_repeated_at_once_and_does_not_count(platform: Platform, tmp_path: Path) -> None:
    platform.deploy(function({"a": retried(0), "b": "a"}))
    event = platform.send(data=script(a=[{"wait_for": str(tmp_path / "never")}, {"return": 2}]))
    run_id = platform.run_of(event)
    lose(platform, run_id, 1)
    (run,) = platform.runs(event)
    assert (run["status"], attempts(run)) == ("completed", [(1, "lost"), (2, "completed")])
    lost = run["steps"]["a"]["attempts"][0]
    assert lost["error"]["kind"] == "lost"
    assert lost["ended_at"] is not None
    assert run["output"] == {"b": {"step": "b"}}


def test_the_fourth_loss_of_a_step_is_a_final_failure(platform: Platform, tmp_path: Path) -> None:
    platform.deploy(function({"a": retried(20), "b": {"after": {"step": "a", "on": "failure"}}}))
    event = platform.send(data=script(a={"wait_for": str(tmp_path / "never")}, b={"input": True}))
    run_id = platform.run_of(event)
    for number in range(1, 5):
        lose(platform, run_id, number)
    (run,) = platform.runs(event)
    assert (run["status"], statuses(run)) == ("completed", {"a": "failed", "b": "completed"})
    assert attempts(run) == [(1, "lost"), (2, "lost"), (3, "lost"), (4, "lost")]
    assert run["output"]["b"]["errors"]["a"]["kind"] == "lost"


def test_losses_and_failures_are_counted_separately(platform: Platform, tmp_path: Path) -> None:
    hangs = {"wait_for": str(tmp_path / "never")}
    platform.deploy(function({"a": retried(1)}))
    event = platform.send(data=script(a=[hangs, NO, hangs, NO, {}]))
    run_id = platform.run_of(event)
    lose(platform, run_id, 1)
    platform.wait(run_id, has("a", "retrying"))
    platform.restart("1m")
    lose(platform, run_id, 3)
    (run,) = platform.runs(event)
    assert attempts(run) == [(1, "lost"), (2, "failed"), (3, "lost"), (4, "failed")]
    assert run["status"] == "failed"


def test_queued_attempts_are_not_lost(platform: Platform, tmp_path: Path) -> None:
    """Only attempts that were running when the server stopped are closed. Queued ones keep their numbers."""
    gate = tmp_path / "gate"
    platform.deploy(function({f"s{i}": {} for i in range(30)}))
    event = platform.send(data=script(**{f"s{i}": {"wait_for": str(gate)} for i in range(30)}))
    run_id = platform.run_of(event)
    run = platform.wait(run_id, lambda run: "running" in statuses(run).values())
    queued = [step for step, status in statuses(run).items() if status == "queued"]
    platform.restart()
    gate.touch()
    (run,) = platform.runs(event)
    assert run["status"] == "completed"
    assert all(attempts(run, step) == [(1, "completed")] for step in queued)

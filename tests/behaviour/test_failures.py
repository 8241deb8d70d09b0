"""Failures: when a failure is handled, what an unhandled one does to the run, and what later steps see of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.behaviour.words import Json, Platform, function, has, script, statuses

NO = {"raise": "no"}


def error(kind: str = "exception", message: str = "RuntimeError: no") -> Json:
    return {"kind": kind, "message": message, "status": None, "output": None}


# --- handled ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edge", "run_status", "handler"),
    [
        ({"on": "failure"}, "completed", "completed"),
        ({"on": "always"}, "completed", "completed"),
        ({"on": "failure", "if": "errors.a.kind == 'exception'"}, "completed", "completed"),
        ({"on": "always", "if": "true"}, "completed", "completed"),
        ({"on": "failure", "if": "errors.a.kind == 'timeout'"}, "failed", "cancelled"),
        ({"on": "always", "if": "false"}, "failed", "cancelled"),
        ({"on": "failure", "if": "errors.a.missing"}, "failed", "cancelled"),  # has no value
        ({"on": "failure", "if": "errors.a.kind"}, "failed", "cancelled"),  # is not a boolean
        ({"on": "success"}, "failed", "cancelled"),
        ({}, "failed", "cancelled"),
    ],
)
def test_a_failure_is_handled_by_an_edge_whose_condition_is_true(
    platform: Platform, edge: Json, run_status: str, handler: str
) -> None:
    platform.deploy(function({"a": {}, "b": {"after": {"step": "a", **edge}}}))
    (run,) = platform.runs(platform.send(data=script(a=NO)))
    assert (run["status"], statuses(run)) == (run_status, {"a": "failed", "b": handler})


def test_one_handling_edge_is_enough(platform: Platform) -> None:
    edges = {"b": {"on": "failure", "if": "false"}, "c": {"on": "failure"}, "d": {}, "e": {"on": "always"}}
    platform.deploy(function({"a": {}, **{step: {"after": {"step": "a", **edge}} for step, edge in edges.items()}}))
    (run,) = platform.runs(platform.send(data=script(a=NO)))
    assert run["status"] == "completed"
    assert statuses(run) == {"a": "failed", "b": "skipped", "c": "completed", "d": "skipped", "e": "completed"}
    assert run["error"] is None


def test_an_edge_with_a_delay_handles_a_failure(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": {"after": {"step": "a", "on": "failure", "wait": "1h"}}}))
    (run,) = platform.runs(platform.send(data=script(a=NO)))
    assert (run["status"], statuses(run)) == ("running", {"a": "failed", "b": "waiting"})
    platform.travel("1h")
    run = platform.run(run["id"])
    assert (run["status"], statuses(run)) == ("completed", {"a": "failed", "b": "completed"})


def test_a_failure_is_handled_even_if_another_edge_has_started_the_step(platform: Platform, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    handler = {"after": ["quick", {"step": "slow", "on": "failure"}], "join": "first"}
    platform.deploy(function({"quick": {}, "slow": {}, "handler": handler}))
    event = platform.send(data=script(slow={"wait_for": str(gate), **NO}))
    platform.wait(platform.run_of(event), has("handler", "completed"))
    gate.touch()
    (run,) = platform.runs(event)
    assert (run["status"], statuses(run)["slow"]) == ("completed", "failed")


def test_a_failure_is_handled_only_when_it_is_final(platform: Platform) -> None:
    retried = {"retries": {"attempts": 1}}
    platform.deploy(function({"a": retried, "b": {"after": {"step": "a", "on": "failure"}}}))
    (run,) = platform.runs(platform.send(data=script(a=[NO, {}])))
    assert statuses(run) == {"a": "retrying", "b": "pending"}
    platform.travel("1m")
    run = platform.run(run["id"])
    assert (run["status"], statuses(run)) == ("completed", {"a": "completed", "b": "skipped"})


def test_a_handler_that_fails_too_fails_the_run(platform: Platform) -> None:
    steps = {"a": {}, "b": {"after": {"step": "a", "on": "failure"}}, "c": "b"}
    platform.deploy(function(steps))
    (run,) = platform.runs(platform.send(data=script(a=NO, b={"raise": "again"})))
    assert (run["status"], statuses(run)) == ("failed", {"a": "failed", "b": "failed", "c": "cancelled"})
    assert run["error"] == {"step": "b", **error(message="RuntimeError: again")}


def test_a_handlers_failure_can_be_handled(platform: Platform) -> None:
    steps = {"a": {}, "b": {"after": {"step": "a", "on": "failure"}}, "c": {"after": {"step": "b", "on": "failure"}}}
    platform.deploy(function(steps))
    (run,) = platform.runs(platform.send(data=script(a=NO, b=NO, c={"input": True})))
    assert run["status"] == "completed"
    assert list(run["output"]["c"]["errors"]) == ["a", "b"]


# --- on: always ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("act", "status"), [({}, "completed"), (NO, "failed")])
def test_always_follows_a_completed_and_a_failed_step(platform: Platform, act: Json, status: str) -> None:
    platform.deploy(function({"a": {}, "b": {"after": {"step": "a", "on": "always"}}}))
    (run,) = platform.runs(platform.send(data=script(a=act)))
    assert (run["status"], statuses(run)) == ("completed", {"a": status, "b": "completed"})


def test_always_does_not_follow_a_skipped_step(platform: Platform) -> None:
    after = {"step": "$trigger", "if": "false"}
    platform.deploy(function({"a": {"after": after}, "b": {"after": {"step": "a", "on": "always"}}}))
    (run,) = platform.runs(platform.send())
    assert statuses(run) == {"a": "skipped", "b": "skipped"}


def test_always_does_not_follow_a_cancelled_step(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": {"after": {"step": "$trigger", "wait": "1h"}}, "c": _always("b")}))
    (run,) = platform.runs(platform.send(data=script(a=NO)))
    assert statuses(run) == {"a": "failed", "b": "cancelled", "c": "cancelled"}


def test_a_failure_edge_of_a_completed_step_is_dead(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": {"after": {"step": "a", "on": "failure"}}}))
    (run,) = platform.runs(platform.send())
    assert (run["status"], statuses(run)) == ("completed", {"a": "completed", "b": "skipped"})
    assert run["output"] == {}  # `a` is not a leaf


# --- unhandled -------------------------------------------------------------------------------------------------------


def test_an_unhandled_failure_ends_the_run_at_once(platform: Platform, tmp_path: Path) -> None:
    """Pending, waiting, retrying and queued steps are cancelled. A running attempt can end, and is recorded."""
    gate, go = tmp_path / "gate", tmp_path / "go"
    retried = {"retries": {"attempts": 4, "backoff": {"initial": "1h"}}}
    steps = {
        "bad": {},
        "slow": {},
        "waiting": {"after": {"step": "$trigger", "wait": "1h"}},
        "retrying": retried,
        "pending": "slow",
    }
    platform.deploy(function(steps))
    event = platform.send(data=script(bad={"wait_for": str(go), **NO}, slow={"wait_for": str(gate)}, retrying=[NO, {}]))
    run_id = platform.run_of(event)
    platform.wait(run_id, lambda run: has("retrying", "retrying")(run) and has("slow", "running")(run))
    go.touch()
    run = platform.wait(run_id, lambda run: run["status"] != "running")
    assert run["status"] == "failed"
    assert run["error"] == {"step": "bad", **error()}
    expected = {"bad": "failed", "waiting": "cancelled", "retrying": "cancelled", "pending": "cancelled"}
    assert statuses(run) == {**expected, "slow": "running"}
    ended_at = run["ended_at"]
    gate.touch()
    platform.settle()
    platform.travel("2h")
    run = platform.run(run_id)
    assert statuses(run) == {**expected, "slow": "completed"}
    assert run["steps"]["slow"]["output"] == {"step": "slow"}
    assert [len(step["attempts"]) for step in run["steps"].values()] == [1, 1, 0, 1, 0]
    assert (run["status"], run["ended_at"], run["output"]) == ("failed", ended_at, None)


@pytest.mark.kind("an attempt may run twice")
def test_queued_steps_of_a_failed_run_never_start(platform: Platform, tmp_path: Path) -> None:
    gate, trace = tmp_path / "gate", tmp_path / "trace"
    fillers: Json = {f"s{i}": {} for i in range(100)}
    acts = {step: {"wait_for": str(gate), "touch": str(trace)} for step in fillers}
    platform.deploy(function({"bad": {}, **fillers}))
    event = platform.send(data=script(bad=NO, **acts))
    run_id = platform.run_of(event)
    platform.wait(run_id, lambda run: run["status"] == "failed")
    gate.touch()
    platform.settle()
    run = platform.run(run_id)
    ran = [step for step, status in statuses(run).items() if status == "completed"]
    assert sorted(line.split()[0] for line in trace.read_text().splitlines()) == sorted(ran)
    assert set(statuses(run).values()) <= {"failed", "completed", "cancelled"}


def test_an_attempt_that_fails_after_the_run_did_is_not_retried(platform: Platform, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    platform.deploy(function({"bad": {}, "slow": {"retries": {"attempts": 4}}, "after": _always("slow")}))
    event = platform.send(data=script(bad=NO, slow={"wait_for": str(gate), "raise": "late"}))
    run_id = platform.run_of(event)
    platform.wait(run_id, lambda run: run["status"] == "failed" and has("slow", "running")(run))
    gate.touch()
    platform.settle()
    platform.travel("2h")
    run = platform.run(run_id)
    assert statuses(run) == {"bad": "failed", "slow": "failed", "after": "cancelled"}
    assert [a["status"] for a in run["steps"]["slow"]["attempts"]] == ["failed"]
    assert run["steps"]["slow"]["error"] == error(message="RuntimeError: late")
    assert run["error"]["step"] == "bad"


def test_an_attempt_that_is_lost_after_the_run_failed_is_not_repeated(platform: Platform, tmp_path: Path) -> None:
    platform.deploy(function({"bad": {}, "slow": {}}))
    event = platform.send(data=script(bad=NO, slow={"wait_for": str(tmp_path / "never")}))
    run_id = platform.run_of(event)
    platform.wait(run_id, lambda run: run["status"] == "failed" and has("slow", "running")(run))
    platform.restart()
    platform.settle()
    run = platform.run(run_id)
    assert (run["status"], statuses(run)) == ("failed", {"bad": "failed", "slow": "failed"})
    assert [a["status"] for a in run["steps"]["slow"]["attempts"]] == ["lost"]


# --- what later steps see of a failure -------------------------------------------------------------------------------


def test_a_step_sees_the_errors_of_its_ancestors(platform: Platform) -> None:
    steps = {"a": {}, "ok": {}, "b": {"after": [_on_failure("a"), "ok"]}, "c": "b"}
    platform.deploy(function(steps))
    acts = script(a={"status": 404, "body": "gone"}, b={"input": True}, c={"input": True})
    (run,) = platform.runs(platform.send(data=acts))
    seen = run["steps"]["b"]["output"]
    assert seen["errors"] == {
        "a": {
            "kind": "status",
            "message": "the output has the status 404",
            "status": 404,
            "output": {"status": 404, "body": "gone"},
        }
    }
    assert seen["steps"] == {"ok": {"step": "ok"}}
    assert run["output"]["c"]["errors"] == seen["errors"]
    assert run["steps"]["a"]["error"] == seen["errors"]["a"]
    assert run["steps"]["a"]["output"] is None


@pytest.mark.parametrize(
    ("condition", "runs"),
    [
        ("response == null", True),
        ("errors.a.status == 404", True),
        ("errors['a'].output.body == 'gone'", True),
        ("'a' in errors && !('a' in steps)", True),
        ("'a' in steps", False),  # a failed step has no output
        ("errors.a.status == 500", False),
    ],
)
def test_a_condition_sees_the_error_and_a_null_response(platform: Platform, condition: str, runs: bool) -> None:
    conditional = {"after": {"step": "a", "on": "failure", "if": condition}}
    platform.deploy(function({"a": {}, "b": conditional, "other": {"after": _on_failure("a")}}))
    (run,) = platform.runs(platform.send(data=script(a={"status": 404, "body": "gone"})))
    assert statuses(run)["b"] == ("completed" if runs else "skipped")


def test_a_condition_of_a_later_step_sees_the_error(platform: Platform) -> None:
    steps = {
        "a": {},
        "b": {"after": _on_failure("a")},
        "c": {"after": {"step": "b", "if": "errors.a.kind == 'exception' && response.step == 'b'"}},
    }
    platform.deploy(function(steps))
    (run,) = platform.runs(platform.send(data=script(a=NO)))
    assert statuses(run)["c"] == "completed"


def test_a_completed_step_leaves_no_error_of_its_failed_attempts(platform: Platform) -> None:
    platform.deploy(function({"a": {"retries": {"attempts": 1}}, "b": "a"}))
    (run,) = platform.runs(platform.send(data=script(a=[NO, {}], b={"input": True})))
    platform.travel("1m")
    run = platform.run(run["id"])
    assert run["output"]["b"]["errors"] == {}
    assert run["steps"]["a"]["error"] is None
    assert [(a["status"], a["error"]) for a in run["steps"]["a"]["attempts"]] == [
        ("failed", error()),
        ("completed", None),
    ]


def _always(step_id: str) -> Json:
    return {"after": {"step": step_id, "on": "always"}}


def _on_failure(step_id: str) -> Json:
    return {"step": step_id, "on": "failure"}

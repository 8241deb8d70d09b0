"""Reruns from a step: the outputs of earlier steps are kept or edited."""

from __future__ import annotations

from typing import Any

import pytest

from tests.behaviour.words import Json, Platform, Refused, function, script, statuses

CHAIN = {"a": {}, "b": "a", "c": "b"}
SEES = {"input": True}


def ended(platform: Platform, event: str) -> Json:
    (run,) = platform.runs(event)
    return run


def rerun(platform: Platform, run: Json, step: str, outputs: Json | None = None) -> Json:
    """Starts a rerun, settles, and returns the new run."""
    body = {"from_step": step, **({} if outputs is None else {"outputs": outputs})}
    answer = platform.api("POST", f"/v1/runs/{run['id']}/rerun", body)
    platform.settle()
    new = platform.run(answer["id"])
    assert (new["rerun_of"], new["event_id"]) == (run["id"], run["event_id"])
    return new


def kept_steps(run: Json) -> list[str]:
    """The steps that were kept, and did not run."""
    return [step_id for step_id, step in run["steps"].items() if step.get("kept") and not step["attempts"]]


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_a_rerun_starts_at_a_step_with_the_earlier_outputs(platform: Platform) -> None:
    platform.deploy(function(CHAIN))
    first = ended(platform, platform.send(data=script(a={"return": {"n": 1}}, b={"raise": "no"}, c=SEES)))
    assert statuses(first) == {"a": "completed", "b": "failed", "c": "cancelled"}
    platform.deploy(function({**CHAIN, "b": {"after": "a", "runtime": MENDED}}), MENDED_FILES)
    run = rerun(platform, first, "b")
    assert (run["status"], run["function_version"], kept_steps(run)) == ("completed", 2, ["a"])
    assert run["steps"]["a"]["output"] == {"n": 1}
    assert run["output"]["c"]["steps"] == {"a": {"n": 1}, "b": {"saw": {"n": 1}}}
    assert platform.run(first["id"]) == first


MENDED = {"type": "lambda", "handler": "app.mended"}
MENDED_CODE = """
def mended(event, context):
    return {"saw": event["steps"]["a"]}

def scripted(event, context):
    event["ctx"].pop("token", None)
    return event
"""
MENDED_FILES: dict[str, str | bytes] = {"steps/app.py": MENDED_CODE}


def test_kept_outputs_can_be_edited(platform: Platform) -> None:
    platform.deploy(function({**CHAIN, "d": {"after": {"step": "a", "if": "response.go"}}}))
    first = ended(platform, platform.send(data=script(a={"return": {"go": False}}, c=SEES)))
    assert statuses(first) == {"a": "completed", "b": "completed", "c": "completed", "d": "skipped"}
    run = rerun(platform, first, "c", {"a": {"go": "ü", "n": [1, None]}, "b": None})
    assert run["output"]["c"]["steps"] == {"a": {"go": "ü", "n": [1, None]}, "b": None}
    assert (run["steps"]["b"]["output"], run["steps"]["b"]["status"]) == (None, "completed")
    assert (statuses(run)["d"], kept_steps(run)) == ("skipped", ["a", "b"])


def test_a_rerun_from_the_first_step_without_edits_ends_like_the_first_run(platform: Platform) -> None:
    steps = {**CHAIN, "bad": {}, "cure": {"after": {"step": "bad", "on": "failure"}}, "end": {"after": ["c", "cure"]}}
    platform.deploy(function(steps))
    first = ended(platform, platform.send(data=script(bad={"raise": "no"})))
    run = rerun(platform, first, "a")
    assert (run["status"], statuses(run), run["output"]) == (first["status"], statuses(first), first["output"])
    assert kept_steps(run) == ["bad", "cure"]
    assert run["steps"]["bad"]["error"] == first["steps"]["bad"]["error"]


def test_a_rerun_can_start_at_a_skipped_step(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": {"after": {"step": "a", "if": "false"}}, "c": "b"}))
    first = ended(platform, platform.send())
    assert statuses(first) == {"a": "completed", "b": "skipped", "c": "skipped"}
    run = rerun(platform, first, "b")
    assert (statuses(run), kept_steps(run)) == ({"a": "completed", "b": "completed", "c": "completed"}, ["a"])
    assert statuses(rerun(platform, first, "c")) == {"a": "completed", "b": "skipped", "c": "completed"}


def test_a_handled_failure_is_kept_as_an_error(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": {"after": {"step": "a", "on": "failure"}}, "c": "b"}))
    first = ended(platform, platform.send(data=script(a={"raise": "no"}, c=SEES)))
    run = rerun(platform, first, "c")
    assert (run["status"], kept_steps(run)) == ("completed", ["a", "b"])
    assert run["output"]["c"]["errors"] == first["output"]["c"]["errors"]
    assert "no" in run["output"]["c"]["errors"]["a"]["message"]


BESIDE = {"a": {}, "bad": "a", "late": {"after": {"step": "a", "if": "response.late", "wait": "1h"}}}
BESIDE_ENDS = {**BESIDE, "end": {"after": ["bad", "late"]}}


def failed_while_another_step_waits(platform: Platform) -> Json:
    platform.deploy(function(BESIDE_ENDS))
    first = ended(platform, platform.send(data=script(a={"return": {"late": True}}, bad={"raise": "no"})))
    assert statuses(first) == {"a": "completed", "bad": "failed", "late": "cancelled", "end": "cancelled"}
    platform.deploy(function({**BESIDE_ENDS, "bad": {"after": "a", "runtime": MENDED}}), MENDED_FILES)
    return first


def test_parallel_steps_that_had_not_ended_run_by_their_edges(platform: Platform) -> None:
    run = rerun(platform, failed_while_another_step_waits(platform), "bad")
    assert statuses(run) == {"a": "completed", "bad": "completed", "late": "waiting", "end": "pending"}
    platform.travel("1h")
    run = platform.run(run["id"])
    assert (run["status"], kept_steps(run)) == ("completed", ["a"])
    assert sorted(run["output"]["end"]["steps"]) == ["a", "bad", "late"]


def test_edges_of_kept_steps_are_evaluated_again_with_edited_outputs(platform: Platform) -> None:
    run = rerun(platform, failed_while_another_step_waits(platform), "bad", {"a": {"late": False}})
    assert statuses(run) == {"a": "completed", "bad": "completed", "late": "skipped", "end": "completed"}
    assert run["steps"]["bad"]["output"] == {"saw": {"late": False}}


def test_a_step_gets_the_event_that_it_had_waited_for(platform: Platform) -> None:
    waits = {"step": "a", "async": {"event": "paid", "ttl": "1d"}}
    platform.deploy(function({"a": {}, "b": {"after": waits}}))
    event = platform.send(data=script(b=SEES))
    platform.settle()
    platform.send("paid", {"sum": 7})
    first = ended(platform, event)
    assert first["output"]["b"]["async"]["data"] == {"sum": 7}
    run = rerun(platform, first, "b")
    assert run["output"]["b"]["async"] == first["output"]["b"]["async"]
    assert run["steps"]["b"]["after"][0]["event_id"] == first["steps"]["b"]["after"][0]["event_id"]


def test_a_later_step_waits_for_a_new_event(platform: Platform) -> None:
    steps = {"a": {}, "b": "a", "c": {"after": {"step": "b", "async": {"event": "paid", "ttl": "1d"}}}}
    platform.deploy(function(steps))
    event = platform.send()
    platform.settle()
    platform.send("paid")
    run = rerun(platform, ended(platform, event), "b")
    assert statuses(run) == {"a": "completed", "b": "completed", "c": "waiting"}
    platform.send("paid")
    platform.settle()
    assert platform.run(run["id"])["status"] == "completed"


def test_kept_outputs_can_be_large_and_many(platform: Platform) -> None:
    many = {f"s{n}": {} for n in range(40)}
    platform.deploy(function({**many, "end": {"after": list(many)}}))
    data = script(
        **{step: {"return": {"n": step, "text": "x" * (5000 if step == "s7" else 10)}} for step in many}, end=SEES
    )
    first = ended(platform, platform.send(data=data))
    run = rerun(platform, first, "end", {"s3": "y" * 100_000})
    seen = run["output"]["end"]["steps"]
    assert {step: seen[step] for step in many if step != "s3"} == {
        step: first["steps"][step]["output"] for step in many if step != "s3"
    }
    assert (seen["s3"], len(kept_steps(run))) == ("y" * 100_000, 40)


def test_a_rerun_can_be_rerun(platform: Platform) -> None:
    platform.deploy(function(CHAIN))
    first = ended(platform, platform.send(data=script(a={"return": 1}, c=SEES)))
    second = rerun(platform, first, "b", {"a": 2})
    third = rerun(platform, second, "c")
    assert (kept_steps(third), third["output"]["c"]["steps"]) == (["a", "b"], {"a": 2, "b": {"step": "b"}})
    assert kept_steps(rerun(platform, third, "a")) == []


def test_kept_steps_survive_a_restart(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": "a", "c": {"after": {"step": "b", "wait": "1h"}}}))
    event = platform.send(data=script(a={"return": 5}, c=SEES))
    platform.settle()
    platform.travel("1h")
    run = rerun(platform, ended(platform, event), "b", {"a": 6})
    assert statuses(run)["c"] == "waiting"
    platform.restart("2h")
    platform.settle()
    run = platform.run(run["id"])
    assert (run["status"], run["output"]["c"]["steps"]) == ("completed", {"a": 6, "b": {"step": "b"}})


def test_an_open_run_can_be_rerun_and_is_not_changed(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": {"after": {"step": "a", "wait": "1d"}}}))
    (first,) = platform.runs(platform.send())
    run = rerun(platform, first, "b")
    assert (run["status"], platform.run(first["id"])) == ("completed", first)


def test_a_rerun_without_a_body_or_a_step_runs_from_the_start(platform: Platform) -> None:
    platform.deploy(function(CHAIN))
    first = ended(platform, platform.send())
    for body in (None, {}, {"from_step": None, "outputs": None}):
        answer = platform.api("POST", f"/v1/runs/{first['id']}/rerun", body)
        platform.settle()
        assert kept_steps(platform.run(answer["id"])) == []
        assert platform.run(answer["id"])["output"] == first["output"]


# --- what is refused -------------------------------------------------------------------------------------------------


def refused(platform: Platform, run: Json, body: Any) -> tuple[int, str]:
    with pytest.raises(Refused) as exception_info:
        platform.api("POST", f"/v1/runs/{run['id']}/rerun", body)
    (error,) = exception_info.value.errors
    return exception_info.value.status, error["message"]


def test_a_step_that_the_live_version_does_not_have_is_refused(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "x": {}, "b": "a"}))
    first = ended(platform, platform.send())
    platform.deploy(function({"a": {}, "x": {}, "b": "a", "new": "b"}))
    assert kept_steps(rerun(platform, first, "new")) == ["a", "x", "b"]
    platform.deploy(function({"a": {}, "b": "a"}))
    status, message = refused(platform, first, {"from_step": "new"})
    assert (status, "the live version 3 of f has no step 'new'" in message) == (409, True)
    status, message = refused(platform, first, {"from_step": "b"})
    assert (status, "no step 'x', whose outcome would be kept" in message) == (409, True)
    assert len(platform.runs()) == 2


@pytest.mark.parametrize("step", ["b", "c", "skipped", "nobody", ""])
def test_only_outputs_of_completed_kept_steps_can_be_edited(platform: Platform, step: str) -> None:
    platform.deploy(function({**CHAIN, "skipped": {"after": {"step": "a", "if": "false"}}}))
    first = ended(platform, platform.send())
    status, message = refused(platform, first, {"from_step": "b", "outputs": {step: 1}})
    assert (status, "set those of a" in message) == (409, True)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], 'the value is not of type "object"'),
        ({"step": "b"}, "'step' was unexpected"),
        ({"from_step": 7}, 'the value is not of types "null", "string"'),
        ({"from_step": ["b"]}, 'the value is not of types "null", "string"'),
        ({"from_step": "b", "outputs": [1]}, 'the value is not of types "null", "object"'),
        ({"outputs": {"a": 1}}, "only be changed together with from_step"),
        ({"from_step": "b", "outputs": {"a": "x" * 300_000}}, "256 KiB"),
    ],
)
def test_an_invalid_request_is_refused_with_a_pointer(platform: Platform, body: Any, message: str) -> None:
    platform.deploy(function(CHAIN))
    first = ended(platform, platform.send())
    status, text = refused(platform, first, body)
    assert (status, message in text) == (400, True), text
    assert len(platform.runs()) == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "not JSON"),
        (b'{"from_step": "b", "outputs": {"a": 123456789012345678901234567890}}', "64 bits"),
        (b'{"from_step": "b", "outputs": {"a": ' + b"[" * 5000 + b"]" * 5000 + b"}}", ""),
    ],
)
def test_outputs_that_cannot_be_stored_are_refused(platform: Platform, body: bytes, message: str) -> None:
    platform.deploy(function(CHAIN))
    first = ended(platform, platform.send())
    answer = platform.http("POST", f"/v1/runs/{first['id']}/rerun", body)
    assert (answer.status, message in answer.body.decode()) == (400, True)

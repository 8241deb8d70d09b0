"""A step's input: the one JSON document, and when it is frozen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.behaviour.words import Json, Platform, function, script, statuses

LOOK = {"input": True}
MOST_INPUT = 640 * 1024


def only_run(platform: Platform, event_id: str) -> Json:
    (run,) = platform.runs(event_id)
    return run


def test_the_first_step_sees_the_event_and_its_context(platform: Platform) -> None:
    platform.deploy(function())
    platform.deploy(function({"a": {"name": "another version"}}))
    data = script(a=LOOK)
    go = platform.send(data=data, user={"external_id": "u-1"}, ts=1234, v="7")
    run = only_run(platform, go)
    assert run["output"]["a"] == {
        "event": {"name": "go", "data": data, "user": {"external_id": "u-1"}, "id": go, "ts": 1234, "v": "7"},
        "steps": {},
        "errors": {},
        "async": None,
        "ctx": {
            "function_id": "f",
            "function_version": 2,
            "run_id": run["id"],
            "step_id": "a",
            "attempt": 1,
            "idempotency_key": f"{run['id']}/a",
            "env": {"local": "dev", "aws": "test"}[platform.name],
            "async_events": [],
        },
    }


def test_fields_that_the_event_does_not_have_are_present_and_empty(platform: Platform) -> None:
    platform.deploy(function({"a": {"runtime": {"type": "lambda", "command": ["sh", "-c", "cat"]}}}))
    (go,) = platform.send_raw(b'{"name": "go"}')
    event = only_run(platform, go)["output"]["a"]["event"]
    assert (event["data"], event["user"], event["v"], event["id"]) == ({}, {}, None, go)
    assert isinstance(event["ts"], int)


def test_a_step_sees_the_outputs_of_its_ancestors_and_of_no_other_step(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "other": {}, "b": "a", "c": "b", "d": {"after": ["c", "other"]}, "e": "d"}))
    acts: Json = {"a": {"return": 1}, "b": {"return": None}, "c": LOOK, "other": {"return": [2]}, "e": LOOK}
    run = only_run(platform, platform.send(data=script(**acts)))
    c = run["steps"]["c"]["output"]
    assert c["steps"] == {"a": 1, "b": None}
    assert run["output"]["e"]["steps"] == {"a": 1, "b": None, "c": c, "d": {"step": "d"}, "other": [2]}


def test_a_step_sees_the_errors_of_its_failed_ancestors(platform: Platform) -> None:
    steps = {"a": {}, "skipped": {"after": [{"step": "a"}]}, "b": {"after": [{"step": "a", "on": "failure"}]}, "c": "b"}
    platform.deploy(function(steps))
    run = only_run(platform, platform.send(data=script(a={"status": 402, "body": "no money"}, b=LOOK, c=LOOK)))
    error = run["steps"]["a"]["error"]
    assert (error["status"], error["output"]) == (402, {"status": 402, "body": "no money"})
    assert set(error) == {"kind", "message", "status", "output"}
    seen = run["steps"]["b"]["output"]
    assert (seen["steps"], seen["errors"]) == ({}, {"a": error})
    assert run["output"]["c"]["errors"] == {"a": error}
    assert set(run["output"]["c"]["steps"]) == {"b"}


def test_a_step_that_succeeded_on_a_retry_is_not_in_errors(platform: Platform) -> None:
    platform.deploy(function({"a": {"retries": {"attempts": 1}}, "b": "a"}))
    go = platform.send(data=script(a=[{"raise": "once"}, {"return": "well"}], b=LOOK))
    platform.travel("1h")
    seen = only_run(platform, go)["output"]["b"]
    assert (seen["steps"], seen["errors"]) == ({"a": "well"}, {})


def test_only_ctx_attempt_changes_between_attempts(platform: Platform, tmp_path: Path) -> None:
    keep = f'#!/bin/sh\ncat > "{tmp_path}/$(date +%s%N)"\nexit 1\n'
    step = {"path": "file://keep.sh", "runtime": {"type": "lambda"}, "retries": {"attempts": 2}}
    platform.deploy(function({"a": {}, "b": {**step, "after": ["a"]}}), {"keep.sh": keep})
    platform.send(user={"id": 1})
    platform.travel("3h")
    inputs = [json.loads(file.read_text()) for file in sorted(tmp_path.iterdir()) if file.is_file()]
    assert [document["ctx"].pop("attempt") for document in inputs] == [1, 2, 3]
    assert inputs[0] == inputs[1] == inputs[2]


def test_a_retry_does_not_see_steps_that_ended_after_the_first_attempt(platform: Platform, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    first = {"after": ["quick", "slow"], "join": "first", "retries": {"attempts": 1}}
    platform.deploy(function({"quick": {}, "slow": {}, "c": first, "d": "c"}))
    acts: Json = {"slow": {"wait_for": str(gate)}, "c": [{"raise": "once"}, LOOK], "d": LOOK}
    run_id = platform.run_of(platform.send(data=script(**acts)))
    platform.wait(run_id, lambda run: run["steps"]["c"]["status"] == "retrying")
    gate.touch()
    platform.travel("1h")
    run = platform.run(run_id)
    assert statuses(run) == dict.fromkeys(("quick", "slow", "c", "d"), "completed")
    assert set(run["steps"]["c"]["output"]["steps"]) == {"quick"}
    assert set(run["output"]["d"]["steps"]) == {"quick", "slow", "c"}  # each step has its own input


def test_an_input_stays_frozen_after_a_restart(platform: Platform, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    first = {"after": ["quick", "slow"], "join": "first", "retries": {"attempts": 1}}
    platform.deploy(function({"quick": {}, "slow": {}, "c": first}))
    acts: Json = {"slow": {"wait_for": str(gate)}, "c": [{"raise": "once"}, LOOK]}
    run_id = platform.run_of(platform.send(data=script(**acts)))
    platform.wait(run_id, lambda run: run["steps"]["c"]["status"] == "retrying")
    gate.touch()
    platform.settle()
    platform.restart("1h")
    platform.settle()
    assert set(platform.run(run_id)["steps"]["c"]["output"]["steps"]) == {"quick"}


# --- sizes ---------------------------------------------------------------------------------------------------------

MEASURE = '#!/bin/sh\nwc -c < "$STEPWELL_INPUT"\n'  # prints the size of the input in bytes
SIZES = {
    **{step: {} for step in ("one", "two", "three")},
    "c": {"after": ["one", "two", "three"], "path": "file://measure", "runtime": {"type": "lambda"}},
}


def measured(platform: Platform, fill: int) -> Json:
    """The step `c` of a run in which three outputs have `fill` characters in total."""
    sizes = {"one": 200_000, "two": 200_000, "three": fill - 400_000}
    data = script(**{step: {"size": size} for step, size in sizes.items()})
    return dict(only_run(platform, platform.send(data=data))["steps"]["c"])


def test_an_input_can_have_640_kib_but_not_one_byte_more(platform: Platform) -> None:
    platform.deploy(function(SIZES), {"measure/main.sh": MEASURE})
    frame = measured(platform, 500_000)["output"] - 500_000
    at_the_limit = measured(platform, MOST_INPUT - frame)
    assert at_the_limit["output"] == MOST_INPUT
    beyond = measured(platform, MOST_INPUT - frame + 1)
    assert (beyond["status"], beyond["error"]["kind"]) == ("failed", "input_too_large")
    assert "reference" in beyond["error"]["message"]


def test_an_input_that_is_too_large_is_not_retried(platform: Platform) -> None:
    platform.deploy(function({**SIZES, "c": {**SIZES["c"], "retries": {"attempts": 3}}}), {"measure/main.sh": MEASURE})
    step = measured(platform, MOST_INPUT)
    assert (step["status"], len(step["attempts"])) == ("failed", 1)


def test_an_input_that_is_too_large_can_be_handled(platform: Platform) -> None:
    wait = {"event": "more", "ttl": "1h"}
    steps = {
        "a": {},
        "b": {"after": [{"step": "a", "async": wait}]},
        "c": {"after": [{"step": "b", "on": "failure"}], "path": "file://kind.py", "runtime": {"type": "lambda"}},
    }
    kind = "import json, sys\nprint(json.dumps(json.load(sys.stdin)['errors']['b']['kind']))\n"
    platform.deploy(function(steps), {"kind.py": kind})
    go = platform.send(data=script(a={"size": 250_000}))
    platform.settle()
    platform.send("more", {"text": "x" * 250_000})  # in the input twice: as `async` and in `async_events`
    run = only_run(platform, go)
    assert (run["status"], statuses(run)) == ("completed", {"a": "completed", "b": "failed", "c": "completed"})
    assert run["output"]["c"] == "input_too_large"


@pytest.mark.parametrize("size", [90_000, 100_000, 130_000])
def test_an_input_of_any_size_reaches_a_handler(platform: Platform, size: int) -> None:
    platform.deploy(function({"a": {}, "b": "a"}))
    data = script(b={"return": "well"}) | {"text": "x" * size}
    assert only_run(platform, platform.send(data=data))["output"] == {"b": "well"}

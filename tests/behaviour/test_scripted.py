"""Scripted steps that run in the test's own process behave as in the real runners."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stepwell.testing.ecs.containers import ContainerStepwell
from stepwell.testing.local import LocalStepwell
from tests.behaviour.scripted import only_returns
from tests.behaviour.words import Json, Platform, function, script, write_function

ACTS: dict[str, Json] = {
    "nothing": {},
    "texts": {"return": {"text": 'é\u2028\U0001f600"\\\n', "empty": ""}},
    "numbers": {"return": [0, -1, 1.5, 1e300, 2**53, 0.1]},
    "null": {"return": None},
    "boolean": {"return": True},
    "text": {"return": "done"},
    "final": {"status": 404},
    "again": {"status": 503, "retry_after": 5, "body": {"why": "busy"}},
    "input": {"input": True},
}
NAMES = list(ACTS)
EDGES = [[], *([{"step": name, "on": "always"}] for name in NAMES)]
DEFINITION = function({name: {"after": edges} for name, edges in zip(NAMES, EDGES, strict=False)})
VARYING = ("run_id", "idempotency_key", "started_at", "ended_at", "queued_at", "accepted_at", "deadline")


def steps_of_a_run(platform: Any, deployable: Any) -> Any:
    """What a run shows of its steps, without ids and times."""
    platform.deploy(deployable)
    (run,) = platform.runs(platform.send(data=script(**ACTS), id="the-event"))
    return _without_varying(run["steps"])


def _without_varying(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_varying(item) for name, item in value.items() if name not in VARYING}
    return [_without_varying(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", ACTS)
def test_a_step_that_only_returns_needs_no_process(name: str) -> None:
    event = {"data": script(**{name: ACTS[name]})}
    assert only_returns(json.dumps({"event": event, "ctx": {"step_id": name, "attempt": 1}}).encode())


@pytest.mark.parametrize("act", ["log", "wait_for", "raise", "crash", "sleep", "size"])
def test_a_step_that_does_more_runs_in_a_process(act: str) -> None:
    event = {"data": script(a=[{}, {act: 1}])}
    assert not only_returns(json.dumps({"event": event, "ctx": {"step_id": "a", "attempt": 2}}).encode())


@pytest.mark.kind("what is shown of attempts is compared")
def test_a_run_looks_the_same_as_with_real_steps(
    platform: Platform, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    answered = steps_of_a_run(platform, DEFINITION)
    if platform.name == "local":
        real: Any = LocalStepwell(tmp_path / "real")
    else:
        account = request.getfixturevalue("stepwell_aws_account")
        assert account[1].sandboxes_started == 0
        real = ContainerStepwell(*account)
        real._host.shortcut = lambda function, payload: None
    assert steps_of_a_run(real, write_function(tmp_path, DEFINITION, None)) == answered
    real.close()

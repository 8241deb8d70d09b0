"""What is read from the end of a task, with texts that ECS uses."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest

from stepwell.aws.steps.stopped_tasks import STOPPED_BY_US, StoppedTask
from stepwell.core.run.messages import Outcome

NOW = 1_800_000_000_000
EXITED = "Essential container in task exited"
KILLED = "OutOfMemoryError: Container killed due to memory usage"


def _task(stop_code: str, stopped_reason: str = EXITED, **step: Any) -> StoppedTask:
    """`step`: the fields of ECS about the container that runs the program."""
    name = {"run": "r", "step": "s", "attempt": 2, "token": "t", "key": "inputs/r/s/2-x"}
    variables = {"STEPWELL_ATTEMPT": orjson.dumps(name).decode(), "STEPWELL_TIMEOUT_MS": "1500"}
    environment = [{"name": name, "value": value} for name, value in variables.items()]
    return StoppedTask(
        {
            "taskArn": "arn:aws:ecs:eu-west-1:123456789012:task/stepwell/0f9de17a6465404e8b1b2356dc13c2f8",
            "lastStatus": "STOPPED",
            "stopCode": stop_code,
            "stoppedReason": stopped_reason,
            "memory": "512",
            "containers": [{"name": "adapter", "exitCode": 0}, {"name": "step", **step}],
            "overrides": {"containerOverrides": [{"name": "adapter"}, {"name": "step", "environment": environment}]},
        }
    )


def _report(**fields: Any) -> dict[str, Any]:
    stdout = base64.b64encode(b'{"done": true}').decode()
    return {"stepwell": 1, "exit": 0, "signal": None, "stdout": stdout, "size": 14, "tail": "", **fields}


def _outcome(task: StoppedTask, report: Any = None) -> Outcome | None:
    end = task.outcome(report, NOW)
    assert end is not None
    assert (end.run_id, end.step, end.attempt, end.token) == ("r", "s", 2, "t")
    assert end.task == "0f9de17a6465404e8b1b2356dc13c2f8"
    return end.outcome


def test_what_was_reported_counts_however_the_task_stopped() -> None:
    for code, reason in (("EssentialContainerExited", EXITED), ("SpotInterruption", ""), ("UserInitiated", "x")):
        assert _outcome(_task(code, reason, exitCode=0), _report()) == Outcome(b'{"done":true}')


def test_a_program_that_was_killed_for_its_memory_is_told_so() -> None:
    outcome = _outcome(_task("EssentialContainerExited", exitCode=0, reason=KILLED), _report(exit=None, signal=9))
    assert outcome is not None
    assert outcome.error is not None
    assert (
        outcome.error.message == "out of memory: the task exceeded the limit of 512 MB; raise `memory` in the runtime"
    )


def test_a_program_that_survives_the_death_of_a_child_has_its_own_outcome() -> None:
    task = _task("EssentialContainerExited", exitCode=0, reason=KILLED)
    assert _outcome(task, _report()) == Outcome(b'{"done":true}')
    outcome = _outcome(task, _report(exit=4, tail="gave up"))
    assert outcome is not None
    assert outcome.error is not None
    assert outcome.error.message == "exit code 4: gave up"


def test_a_report_of_a_timeout_names_the_timeout() -> None:
    outcome = _outcome(_task("EssentialContainerExited", exitCode=0), _report(timed_out=True))
    assert outcome is not None
    assert outcome.error is not None
    assert (outcome.error.kind, outcome.error.message) == (
        "timeout",
        "the attempt did not end within the timeout of 1.5 s",
    )


@pytest.mark.parametrize("report", [[], "x", {"stepwell": 1}, {"stepwell": 1, "exit": "x"}, {"exit": 0}])
def test_a_report_that_is_none_is_a_failure(report: Any) -> None:
    outcome = _outcome(_task("EssentialContainerExited", exitCode=0), report)
    assert outcome is not None
    assert outcome.error is not None
    assert outcome.error.kind == "crash"


@pytest.mark.parametrize("code", ["SpotInterruption", "TerminationNotice", "InfrastructureHealth"])
def test_a_task_that_aws_took_away_is_lost(code: str) -> None:
    assert _outcome(_task(code, "Your Spot Task was interrupted.", exitCode=137)) is None


def test_nothing_is_said_of_a_task_that_we_stopped() -> None:
    assert _task("UserInitiated", STOPPED_BY_US, exitCode=137).outcome(None, NOW) is None


@pytest.mark.parametrize(
    ("stop_code", "reason", "step", "kind", "retryable"),
    [
        # the image does not exist, and will not
        ("TaskFailedToStart", "CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to"
         " resolve ref docker.io/library/nothing:1: docker.io/library/nothing:1: not found", {}, "start", False),
        ("TaskFailedToStart", "CannotPullContainerError: manifest unknown: image not found", {}, "start", False),
        ("TaskFailedToStart", "CannotPullContainerError: image Manifest does not contain descriptor matching platform"
         " 'linux/arm64'", {}, "start", False),
        # the registry is slow or limits pulls
        ("TaskFailedToStart", "CannotPullContainerError: Error response from daemon: Get https://r/v2/: net/http:"
         " request canceled while waiting for connection", {}, "start", True),
        ("TaskFailedToStart", "CannotPullContainerError: toomanyrequests: You have reached your pull rate limit", {},
         "start", True),
        # the network, the secrets
        ("TaskFailedToStart", "Timeout waiting for network interface provisioning to complete.", {}, "start", True),
        ("TaskFailedToStart", "ResourceInitializationError: unable to pull secrets or registry auth: execution resource"
         " retrieval failed: unable to retrieve secrets from ssm: Invalid ssm parameters: /x", {}, "start", False),
        # the reason is in the container; the task only contains that it exited
        ("EssentialContainerExited", EXITED, {"reason": "CannotStartContainerError: failed to create shim task"},
         "start", True),
        # only an exit code
        ("EssentialContainerExited", EXITED, {"exitCode": 137}, "crash", True),
        ("EssentialContainerExited", EXITED, {"exitCode": 137, "reason": KILLED}, "crash", True),
        ("UserInitiated", "Task stopped by user", {"exitCode": 143}, "stopped", True),
    ],
)  # fmt: skip
def test_without_a_report_the_words_of_ecs_decide(
    stop_code: str, reason: str, step: dict[str, Any], kind: str, retryable: bool
) -> None:
    outcome = _outcome(_task(stop_code, reason, **step))
    assert outcome is not None
    assert outcome.error is not None
    assert (outcome.error.kind, outcome.retryable) == (kind, retryable)
    words = step.get("reason", reason) if kind == "start" else ""
    assert words in outcome.error.message


def test_a_task_of_somebody_else_is_not_ours() -> None:
    assert StoppedTask({"lastStatus": "STOPPED", "overrides": {"containerOverrides": [{"name": "step"}]}}).name is None
    assert StoppedTask({"lastStatus": "STOPPED"}).name is None

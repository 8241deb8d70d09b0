"""Reads the outcome of an attempt from the ECS task that ran it.

The adapter's report decides. If there is none, the outcome follows from the reasons that ECS gives in the event:
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_task_events.html
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from stepwell.aws.steps.container_names import ADAPTER, STEP
from stepwell.aws.steps.outcomes import outcome_of_report
from stepwell.core.run.messages import Outcome
from stepwell.core.run.outcome import failure

STOPPED_BY_US = "stepwell: the attempt is over"
_LOST_WITH_HOST = frozenset({"SpotInterruption", "TerminationNotice", "InfrastructureHealth"})
_START_ERRORS = ("CannotPull", "CannotStartContainer", "CannotCreateContainer", "ResourceInitialization")
# Start errors with these words are permanent: a retry would fail again.
_PERMANENT = (
    "manifest unknown",
    "not found",
    "does not exist",
    "no such file or directory",
    "executable file not found",
    "exec format error",
    "does not contain descriptor matching platform",
    "invalid reference format",
    "invalid ssm parameters",
    "permission denied",
)


@dataclass(frozen=True, slots=True)
class TaskOutcome:
    """The end of an attempt. `outcome` is None if the attempt was lost together with the machine that it ran on."""

    run_id: str
    step: str
    attempt: int
    token: str
    outcome: Outcome | None
    task: str  # the task's id, which is also in the name of the log stream


class StoppedTask:
    """A task as ECS describes it, in events and in DescribeTasks."""

    def __init__(self, detail: dict[str, Any]) -> None:
        self._detail = detail

    @property
    def is_stopped(self) -> bool:
        return bool(self._detail.get("lastStatus") == "STOPPED")

    @cached_property
    def name(self) -> dict[str, Any] | None:
        """Run, step, attempt, token and key of the attempt. None if the task does not belong to Stepwell."""
        name = self._variables.get("STEPWELL_ATTEMPT")
        return None if name is None else orjson.loads(name)

    @cached_property
    def _variables(self) -> dict[str, str]:
        overrides = self._detail.get("overrides", {}).get("containerOverrides", ())
        return {
            variable["name"]: variable.get("value", "")
            for container in overrides
            if container.get("name") == STEP
            for variable in container.get("environment", ())
        }

    def is_of(self, step_id: str, attempt: int | None) -> bool:
        name = self.name
        return name is not None and name["step"] == step_id and attempt in (None, name["attempt"])

    def outcome(self, report: Any, now: int) -> TaskOutcome | None:
        """The attempt's outcome. `report`: the adapter's, or None. Returns None if Stepwell stopped the task."""
        name, timeout_ms = self.name, int(self._variables["STEPWELL_TIMEOUT_MS"])
        assert name is not None
        if report is not None:
            outcome: Outcome | None = self._reported(outcome_of_report(report, now, timeout_ms))
        elif self._stop_code == "UserInitiated" and self._stopped_reason == STOPPED_BY_US:
            return None
        else:
            outcome = self._unreported()
        task_id = str(self._detail.get("taskArn", "")).rpartition("/")[2]
        return TaskOutcome(name["run"], name["step"], name["attempt"], name["token"], outcome, task_id)

    # --- ECS's description -------------------------------------------------------------------------------------------

    @property
    def _stop_code(self) -> str:
        return str(self._detail.get("stopCode", ""))

    @property
    def _stopped_reason(self) -> str:
        return str(self._detail.get("stoppedReason", ""))

    def _container(self, name: str) -> dict[str, Any]:
        containers = self._detail.get("containers", ())
        return next((container for container in containers if container.get("name") == name), {})

    @cached_property
    def _reason(self) -> str:
        """ECS's reason why a container failed, or else why the task stopped."""
        reasons = [str(self._container(name).get("reason", "")) for name in (STEP, ADAPTER)]
        return next(filter(None, reasons), self._stopped_reason)

    @property
    def _was_out_of_memory(self) -> bool:
        return "OutOfMemory" in str(self._container(STEP).get("reason", ""))

    def _reported(self, outcome: Outcome) -> Outcome:
        """`outcome`, or "out of memory" if ECS gives that as the reason: the adapter sees only a killed program."""
        if self._was_out_of_memory and outcome.error is not None and outcome.error.kind == "crash":
            return self._out_of_memory()
        return outcome

    def _unreported(self) -> Outcome | None:
        if self._stop_code in _LOST_WITH_HOST:
            return None
        if self._was_out_of_memory:
            return self._out_of_memory()
        if self._stop_code == "UserInitiated":
            return failure("stopped", f"the task was stopped by hand: {self._stopped_reason}")
        step_code, adapter_code = (self._container(name).get("exitCode") for name in (STEP, ADAPTER))
        if self._stop_code == "TaskFailedToStart" or any(word in self._reason for word in _START_ERRORS):
            return _start_error(self._reason)
        if step_code is None and adapter_code:
            return _start_error(f"the step adapter could not be installed (exit code {adapter_code})")
        if step_code is None:
            return _start_error(self._reason or "the task ended before the container started")
        return failure("crash", f"the container ended with exit code {step_code} and without a report; see the log")

    def _out_of_memory(self) -> Outcome:
        memory = self._detail.get("memory")
        limit = f" of {memory} MB" if memory else ""
        return failure("crash", f"out of memory: the task exceeded the limit{limit}; raise `memory` in the runtime")


def _start_error(reason: str) -> Outcome:
    is_final = any(words in reason.lower() for words in _PERMANENT)
    return failure("start", f"the container could not be started: {reason}", retryable=not is_final)

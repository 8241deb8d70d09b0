"""Runs in a state that a test chooses, created without the events that lead to it."""

from __future__ import annotations

from stepwell.core.compile import compile_plan
from stepwell.core.definition.definition import parse_definition
from stepwell.core.run.run import PauseState, PauseStatus, Run, StepState, StepStatus, new_run
from stepwell.testing.batches import Json

NOW = 1_780_308_030_000


class RunStates:
    """Runs of a function with these steps."""

    def __init__(self, steps: Json, **fields: Json) -> None:
        raw = {"id": "f", "triggers": [{"event": "go"}], "steps": steps, **fields}
        self.plan = compile_plan(parse_definition(raw).normalised(), 1)

    @property
    def some(self) -> Run:
        """A run to which nothing has happened since `NOW`."""
        return new_run("run", self.plan, NOW)

    def with_step(self, index: int, status: StepStatus, attempt: int = 1) -> Run:
        """A run in which one step has this state since `NOW`."""
        run = new_run("run", self.plan, NOW)
        steps = [StepState(status, attempt, at=NOW) if i == index else step for i, step in enumerate(run.steps)]
        return run._replace(steps=tuple(steps))

    def with_pause(self, status: PauseStatus) -> Run:
        """A run in which the only pause has this state and is due at `NOW`."""
        return new_run("run", self.plan, NOW)._replace(pauses=(PauseState(status, NOW),))

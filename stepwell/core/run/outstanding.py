"""Derives the commands that a run still needs from its state alone."""

from __future__ import annotations

from collections.abc import Iterable

from stepwell.core.plan import Plan
from stepwell.core.run.attempt_timer import attempt_timer
from stepwell.core.run.messages import Command, OpenWait, RunStep, SetTimer, Timer, TimerKind
from stepwell.core.run.run import PauseStatus, Run, StepStatus
from stepwell.core.run.timeouts import open_timers


def outstanding(plan: Plan, run: Run) -> Iterable[Command]:
    """The commands that a run in this state needs. Carrying one out twice is harmless."""
    for i, step in enumerate(run.steps):
        if step.status is StepStatus.QUEUED:
            yield RunStep(i, step.attempt)
        elif step.status is StepStatus.RETRYING:
            yield SetTimer(Timer(TimerKind.RETRY, i, step.attempt), step.at)
        elif step.status is StepStatus.RUNNING and plan.steps[i].has_timer:
            yield SetTimer(attempt_timer(plan.steps[i], i, step.attempt), step.at + plan.steps[i].timeout_ms)
    yield from open_timers(plan, run)
    unsatisfiable = {index for kind, index, _ in run.problems if kind == "pause"}
    for p, pause in enumerate(run.pauses):
        if pause.status is PauseStatus.DELAYED:
            yield SetTimer(Timer(TimerKind.DELAY, p), pause.due_at)
        elif pause.status is PauseStatus.AWAITING:
            if p not in unsatisfiable:
                yield OpenWait(p, pause.key, pause.due_at)
            if plan.pauses[p].ttl_ms:
                yield SetTimer(Timer(TimerKind.DEADLINE, p), pause.due_at)

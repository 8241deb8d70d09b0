"""The timer of an attempt that this platform does not execute: an approval, or a step of another system's workers.

The claim sets the timer, and it is part of the stored state. So the attempt ends in time whatever happens to servers.
"""

from __future__ import annotations

from stepwell.core.plan import Step
from stepwell.core.run.messages import AttemptEnded, AttemptLost, AttemptOverdue, Timer, TimerKind
from stepwell.core.run.outcome import timed_out


def attempt_timer(step: Step, index: int, attempt: int) -> Timer:
    """The timer of an attempt. Only for steps with `has_timer`."""
    return Timer(TimerKind.DECISION if step.is_approval else TimerKind.OVERDUE, index, attempt)


def overdue_end(step: Step, fact: AttemptOverdue) -> AttemptEnded | AttemptLost:
    """How an overdue attempt ends. A worker that fetched it may have died, so the attempt is lost; otherwise it has
    timed out."""
    if step.is_fetched:
        return AttemptLost(fact.step, fact.attempt)
    return AttemptEnded(fact.step, fact.attempt, timed_out(step.timeout_ms))

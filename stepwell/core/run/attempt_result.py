"""Decides what happens to a step after an attempt: it completes, retries, or fails for good."""

from __future__ import annotations

from stepwell.core.plain_data import immutable
from stepwell.core.plan import Step
from stepwell.core.run.messages import AttemptEnded, AttemptLost, Error, Outcome
from stepwell.core.run.retry import retry_delay_ms
from stepwell.core.run.run import Run, RunStatus, StepState, StepStatus

_RUNNING_RUN, _RUNNING = RunStatus.RUNNING, StepStatus.RUNNING

MAX_LOSSES = 4  # the fourth loss of a step is a final failure


@immutable
class AttemptResult:
    """What happens to a step after an attempt. `move`: a move in the table `STEP` of `transitions`. `record`: the
    status of the attempt in the step's history. `delay_ms`: the time until a retry."""

    move: str
    record: str
    outcome: Outcome
    delay_ms: int = 0


def is_current(state: StepState, fact: AttemptEnded | AttemptLost) -> bool:
    """Whether the fact is about the attempt that is running now."""
    return state.status is _RUNNING and state.attempt == fact.attempt


def attempt_result(run: Run, step: Step, state: StepState, fact: AttemptEnded | AttemptLost) -> AttemptResult:
    """The result of an attempt for the step. In a failed run, nothing is retried."""
    again = run.status is _RUNNING_RUN
    if isinstance(fact, AttemptLost):
        error = Error("lost", f"the server or worker was lost during attempt {state.attempt}")
        move = "lose" if again and state.losses + 1 < MAX_LOSSES else "fail"
        return AttemptResult(move, "lost", Outcome(error=error))
    outcome = fact.outcome
    if outcome.error is None:
        return AttemptResult("complete", "completed", outcome)
    if not (again and outcome.retryable and state.failures < step.retries.attempts):
        return AttemptResult("fail", "failed", outcome)
    delay = outcome.retry_after_ms
    if delay is None:
        delay = retry_delay_ms(step.retries, state.failures + 1, f"{run.id}/{step.id}/{state.attempt}")
    return AttemptResult("retry", "failed", outcome, delay)

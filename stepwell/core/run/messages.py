"""The input of the engine core (facts, in the past tense) and the output (commands, in the imperative).

Plain data only. Times are milliseconds since the Unix epoch. JSON texts are valid UTF-8 bytes. Steps, edges and pauses
are identified by the index in the `Plan`.
"""

from __future__ import annotations

from enum import IntEnum

from stepwell.core.plain_data import immutable


@immutable
class Error:
    """The error of a failed attempt, shown to later steps and in the API: `{kind, message, status, output}`."""

    kind: str
    message: str
    status: int | None = None
    output: bytes | None = None  # JSON text of the attempt's output, if that is a JSON object


@immutable
class Outcome:
    """The result of an attempt: an output (JSON text), or an error that may be retried."""

    output: bytes | None = None
    error: Error | None = None
    retryable: bool = True
    retry_after_ms: int | None = None


class TimerKind(IntEnum):
    RETRY = 1
    DELAY = 2
    DEADLINE = 3
    DECISION = 4  # the end of the time for a decision on an approval
    OVERDUE = 5  # the end of the time for an attempt that another system executes
    START = 6  # the end of the time until the run's first attempt starts
    FINISH = 7  # the end of the time of the run


# --- facts ---------------------------------------------------------------------------------------------------------


@immutable
class RunStarted:
    """The run was created: the `$trigger` edges settle, and the first steps start."""


@immutable
class RunHeld:
    """The run was created, and starts when its limits allow it: a `RunStarted` follows."""


@immutable
class CarriedOver:
    """The outcome of a step in an earlier run. None: the step was skipped."""

    step: int
    outcome: Outcome | None


@immutable
class RunResumed:
    """The run was created to continue an earlier run from a step.

    This step starts at once, without its edges being evaluated. The `kept` steps have ended already. `satisfied`: the
    edges into these steps that were satisfied. `matched`: the pauses that events matched, in order.
    """

    step: int
    kept: tuple[CarriedOver, ...]
    satisfied: tuple[int, ...]
    matched: tuple[tuple[int, str], ...]  # pause and event


@immutable
class StepKept:
    """A step was carried over: the edges to steps that run again are settled."""

    step: int


@immutable
class AttemptStarted:
    """A worker is about to execute this attempt. The transition that folds this fact is the claim."""

    step: int
    attempt: int


@immutable
class AttemptPostponed:
    """The claimed attempt was never started. It is to be started again at `until` (ms since the epoch)."""

    step: int
    attempt: int
    until: int


@immutable
class AttemptEnded:
    step: int
    attempt: int
    outcome: Outcome
    at: int | None = None  # when it ended, if the fact arrives later


@immutable
class AttemptLost:
    """The server or worker that executed this attempt is gone, so the outcome is unknown."""

    step: int
    attempt: int


@immutable
class AttemptOverdue:
    """Workers of another system have not ended this attempt within the step's timeout."""

    step: int
    attempt: int


@immutable
class RetryDue:
    step: int
    attempt: int  # the failed attempt; the next number is queued


@immutable
class DelayEnded:
    pause: int


@immutable
class EventArrived:
    """An event satisfied the wait: the name is equal, `match` is true, it came in time, and it is not a replay."""

    pause: int
    event_id: str


@immutable
class DeadlinePassed:
    """The ttl of the wait has passed, and a last search found no event that satisfies it.

    `looked`: the position up to which events have been checked already.
    """

    pause: int
    looked: int = 0


@immutable
class RunTimedOut:
    """The run has exceeded a limit of `timeouts`. `kind`: START or FINISH."""

    kind: TimerKind


@immutable
class CancelRequested:
    """`replaced_by`: the id of the run that takes the place of this one, because of `singleton`."""

    replaced_by: str | None = None


Fact = (
    RunStarted
    | RunHeld
    | RunResumed
    | StepKept
    | AttemptStarted
    | AttemptPostponed
    | AttemptEnded
    | AttemptLost
    | AttemptOverdue
    | RetryDue
    | DelayEnded
    | EventArrived
    | DeadlinePassed
    | RunTimedOut
    | CancelRequested
)


# --- commands ------------------------------------------------------------------------------------------------------


@immutable
class Timer:
    """The identity of a timer within a run. `index`: a step for RETRY, DECISION and OVERDUE (with `attempt`); 0 for
    START and FINISH; else a pause."""

    kind: TimerKind
    index: int
    attempt: int = 0

    def fact(self) -> Fact:
        """The fact to fold when the timer is due."""
        if self.kind is TimerKind.RETRY:
            return RetryDue(self.index, self.attempt)
        if self.kind is TimerKind.DELAY:
            return DelayEnded(self.index)
        if self.kind is TimerKind.DECISION:
            error = Error("approval_timeout", "there was no decision before the timeout")
            return AttemptEnded(self.index, self.attempt, Outcome(error=error, retryable=False))
        if self.kind is TimerKind.OVERDUE:
            return AttemptOverdue(self.index, self.attempt)
        if self.kind in (TimerKind.START, TimerKind.FINISH):
            return RunTimedOut(self.kind)
        return DeadlinePassed(self.index)


def timer_of(fact: Fact) -> Timer | None:
    """The timer that produces a fact; None if the fact does not come from a timer."""
    if isinstance(fact, RetryDue):
        return Timer(TimerKind.RETRY, fact.step, fact.attempt)
    if isinstance(fact, AttemptOverdue):
        return Timer(TimerKind.OVERDUE, fact.step, fact.attempt)
    if isinstance(fact, DelayEnded):
        return Timer(TimerKind.DELAY, fact.pause)
    if isinstance(fact, DeadlinePassed):
        return Timer(TimerKind.DEADLINE, fact.pause)
    if isinstance(fact, RunTimedOut):
        return Timer(fact.kind, 0)
    if isinstance(fact, AttemptEnded):
        decision = Timer(TimerKind.DECISION, fact.step, fact.attempt)
        return decision if decision.fact() == fact else None
    return None


@immutable
class RunStep:
    """Execute this attempt, which is queued."""

    step: int
    attempt: int


@immutable
class StopStep:
    """Stop this running attempt. The outcome changes nothing any more."""

    step: int
    attempt: int


@immutable
class SetTimer:
    timer: Timer
    due_at: int


@immutable
class ClearTimer:
    timer: Timer


@immutable
class OpenWait:
    """Store the wait, then search for matching events that were accepted before it was stored."""

    pause: int
    key: bytes | None
    deadline: int


@immutable
class CloseWait:
    pause: int


@immutable
class RecordAttempt:
    """Store the record of an attempt that has ended.

    `status`: completed, failed, lost or cancelled; or kept, with attempt 0, for a result from an earlier run.
    """

    step: int
    attempt: int
    status: str
    queued_at: int
    started_at: int | None
    ended_at: int
    output: bytes | None = None
    error: Error | None = None


@immutable
class EmitEnd:
    """Send the event about the end of the run: `stepwell/run.<status>`."""

    status: str


Command = RunStep | StopStep | SetTimer | ClearTimer | OpenWait | CloseWait | RecordAttempt | EmitEnd

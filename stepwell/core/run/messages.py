"""What goes into the engine core (facts, past tense) and what comes out of it (commands, imperative).

Plain data only. Times are integers: milliseconds since the Unix epoch. JSON texts are UTF-8 bytes, already valid.
Steps, edges and pauses are named by their index in the `Plan`.
"""

from __future__ import annotations

from dataclasses import field
from enum import IntEnum

from stepwell.core.cel.answer import Answer
from stepwell.core.plain_data import immutable


@immutable
class Error:
    """Why an attempt failed, as steps and people see it: `{kind, message, status, output}`."""

    kind: str
    message: str
    status: int | None = None
    output: bytes | None = None  # JSON text of what the attempt printed, where that was JSON


@immutable
class Outcome:
    """What came back from an attempt: an output (JSON text), or an error that may be worth another try."""

    output: bytes | None = None
    error: Error | None = None
    retryable: bool = True
    retry_after_ms: int | None = None


# --- facts ---------------------------------------------------------------------------------------------------------


@immutable
class RunStarted:
    """The run was made: its `$trigger` edges settle, its first steps start."""


@immutable
class CarriedOver:
    """The outcome that a step had in an earlier run. None: it was skipped."""

    step: int
    outcome: Outcome | None


@immutable
class RunResumed:
    """The run was made to go on from a step of an earlier one. That step starts at once, whatever its edges say; the
    kept steps have ended. Of the edges into all of these, some were `satisfied`; events `matched` pauses, in order."""

    step: int
    kept: tuple[CarriedOver, ...]
    satisfied: tuple[int, ...]
    matched: tuple[tuple[int, str], ...]  # pause and event


@immutable
class StepKept:
    """A kept step's edges to steps that run again are settled anew."""

    step: int


@immutable
class AttemptStarted:
    """A claim: this attempt is about to be executed, by exactly one worker."""

    step: int
    attempt: int


@immutable
class AttemptPostponed:
    """The claimed attempt was never started, and is to be started anew at `until` (ms since the epoch)."""

    step: int
    attempt: int
    until: int


@immutable
class AttemptEnded:
    step: int
    attempt: int
    outcome: Outcome
    at: int | None = None  # when it ended, if it is told later


@immutable
class AttemptLost:
    """The server or worker that executed this attempt is gone, and nobody knows how the attempt ended."""

    step: int
    attempt: int


@immutable
class RetryDue:
    step: int
    attempt: int  # the attempt that failed; the next number is queued


@immutable
class DelayEnded:
    pause: int


@immutable
class EventArrived:
    """An event that satisfies the wait: the name is equal, `match` held, it came in time, it is no replay."""

    pause: int
    event_id: str


@immutable
class DeadlinePassed:
    """The wait's ttl is over, and a last look found no event that satisfies it. `looked`: the position up to which that
    is known already."""

    pause: int
    looked: int = 0


@immutable
class CancelRequested:
    pass


Fact = (
    RunStarted
    | RunResumed
    | StepKept
    | AttemptStarted
    | AttemptPostponed
    | AttemptEnded
    | AttemptLost
    | RetryDue
    | DelayEnded
    | EventArrived
    | DeadlinePassed
    | CancelRequested
)


# --- questions and answers -----------------------------------------------------------------------------------------


@immutable
class WaitKey:
    """Where a wait is found: `key` is the index key of its equality conjuncts, None if only its name tells.

    `problem` is set if the known side of `match` has no value, so that no event can satisfy it.
    """

    key: bytes | None
    problem: str | None = None


@immutable
class Questions:
    """What the engine must evaluate before a fact can be decided. All of it is about edges of one `parent`."""

    parent: int = -1
    edges: tuple[int, ...] = ()  # edges whose `if` is evaluated now
    pauses: tuple[int, ...] = ()  # pauses whose wait key is needed now
    outcome: Outcome | None = None  # how the parent ends with this fact, if it does


@immutable
class Answers:
    edges: dict[int, Answer] = field(default_factory=dict)
    pauses: dict[int, WaitKey] = field(default_factory=dict)


NO_QUESTIONS = Questions()
NO_ANSWERS = Answers()


# --- commands ------------------------------------------------------------------------------------------------------


class TimerKind(IntEnum):
    RETRY = 1
    DELAY = 2
    DEADLINE = 3
    DECISION = 4  # by when people must have decided on an approval


@immutable
class Timer:
    """A timer's name within its run. `index` is a step for RETRY and DECISION (with its attempt), else a pause."""

    kind: TimerKind
    index: int
    attempt: int = 0

    def fact(self) -> Fact:
        """The fact that is true once this timer is due."""
        if self.kind is TimerKind.RETRY:
            return RetryDue(self.index, self.attempt)
        if self.kind is TimerKind.DELAY:
            return DelayEnded(self.index)
        if self.kind is TimerKind.DECISION:
            error = Error("approval_timeout", "nobody decided in time")
            return AttemptEnded(self.index, self.attempt, Outcome(error=error, retryable=False))
        return DeadlinePassed(self.index)


def timer_of(fact: Fact) -> Timer | None:
    """The timer that brings a fact; None if no timer does."""
    if isinstance(fact, RetryDue):
        return Timer(TimerKind.RETRY, fact.step, fact.attempt)
    if isinstance(fact, DelayEnded):
        return Timer(TimerKind.DELAY, fact.pause)
    if isinstance(fact, DeadlinePassed):
        return Timer(TimerKind.DEADLINE, fact.pause)
    if isinstance(fact, AttemptEnded):
        decision = Timer(TimerKind.DECISION, fact.step, fact.attempt)
        return decision if decision.fact() == fact else None
    return None


@immutable
class RunStep:
    """Execute this attempt: it is queued."""

    step: int
    attempt: int


@immutable
class StopStep:
    """Kill this running attempt; its outcome will change nothing."""

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
    """Store the wait, then look for events that came before it was stored."""

    pause: int
    key: bytes | None
    deadline: int


@immutable
class CloseWait:
    pause: int


@immutable
class RecordAttempt:
    """An attempt is over: keep its record. `status`: completed, failed, lost or cancelled; or kept, with the number 0,
    for what a step did in an earlier run."""

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
    """Tell the world that the run ended: `stepwell/run.<status>`."""

    status: str


Command = RunStep | StopStep | SetTimer | ClearTimer | OpenWait | CloseWait | RecordAttempt | EmitEnd

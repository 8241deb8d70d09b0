"""Finds the facts of a run that are overdue, and when the next fact may become overdue.

All timers can be derived from the run. An attempt that has been silent for longer than it may take is lost, or failed
if Stepwell did not create the Lambda. A fact counts as overdue only some time after it is due, so that the sweeper does
not overtake messages that are only slow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple, Protocol

from stepwell.aws.queues.messages import MAX_DELAY_MS
from stepwell.core.plan import Plan
from stepwell.core.run.messages import (
    AttemptEnded,
    AttemptLost,
    DeadlinePassed,
    DelayEnded,
    Fact,
    RetryDue,
    RunHeld,
    RunStarted,
    RunTimedOut,
    Timer,
    TimerKind,
)
from stepwell.core.run.outcome import failure
from stepwell.core.run.permits import RUN, is_waiting
from stepwell.core.run.run import PauseStatus, Run, StepStatus
from stepwell.core.run.timeouts import open_timers

LATE_MS = 120_000  # after the due time, the message of a timer counts as lost
_START_MS = 60_000
_SENDING_MS = 10 * 60_000  # until an event that a step sends is sent again, which is harmless
_CHECKED_MS, _LONGEST_GAP_MS = 10 * 60_000, 32 * 60_000
_UNDECIDED = "Undecided"
_PLAIN = (AttemptLost, DeadlinePassed, DelayEnded, RetryDue, RunHeld, RunStarted)
_FACTS: dict[str, Callable[..., Fact]] = {
    _UNDECIDED: lambda step, attempt: Timer(TimerKind.DECISION, step, attempt).fact(),
    RunTimedOut.__name__: lambda kind: RunTimedOut(TimerKind(kind)),
    **{function.__name__: function for function in _PLAIN},
}


class OpenRun(Protocol):
    """A run to check. `causes`: by step, the id of the message that claimed the attempt, and when (ms)."""

    @property
    def run(self) -> Run: ...
    @property
    def plan(self) -> Plan: ...
    @property
    def causes(self) -> Mapping[int, tuple[str, int]]: ...


class _Expected(NamedTuple):
    """A fact that should arrive, the time (ms) from which it is overdue, and the due time of the timer, if any."""

    fact: Fact
    late_at: int
    timer: int | None = None


def overdue(record: OpenRun, now: int, event_age_ms: int, silence_ms: int | None = None) -> list[Fact]:
    """The overdue facts of a run.

    An attempt is lost if it was silent for longer than it may wait (`event_age_ms`) and run, or for `silence_ms`.
    """
    return [expected.fact for expected in _expected(record, now, event_age_ms, silence_ms) if expected.late_at <= now]


def next_check_at(record: OpenRun, now: int, event_age_ms: int) -> int | None:
    """The time (ms) at which a fact of this run may become overdue if nothing else happens.

    None if the run only waits for far timers: their items are sent again until the run has handled them.
    """
    expected = _expected(record, now, event_age_ms, None)
    return min(
        (expected.late_at for expected in expected if expected.timer is None or expected.timer - now <= MAX_DELAY_MS),
        default=None,
    )


def _expected(record: OpenRun, now: int, event_age_ms: int, silence_ms: int | None) -> Iterator[_Expected]:
    steps = record.plan.steps
    for i, step in enumerate(record.run.steps):
        if step.status is StepStatus.RUNNING and steps[i].is_approval:
            due_at = step.at + steps[i].timeout_ms
            yield _Expected(Timer(TimerKind.DECISION, i, step.attempt).fact(), due_at + LATE_MS, due_at)
        elif step.status is StepStatus.RUNNING:
            claimed = max(step.at, record.causes.get(i, ("", 0))[1])
            longest = _SENDING_MS if steps[i].is_emit else event_age_ms + steps[i].timeout_ms + _START_MS
            yield _Expected(AttemptLost(i, step.attempt), claimed + (longest if silence_ms is None else silence_ms))
        elif step.status is StepStatus.RETRYING:
            yield _Expected(RetryDue(i, step.attempt), step.at + LATE_MS, step.at)
        elif step.status is StepStatus.QUEUED:
            limited = steps[i].is_limited and silence_ms is None
            yield _Expected(RunStarted(), _next_at(step.at, now) if limited else step.at + LATE_MS)
    if record.plan.start_limits and is_waiting(record.run, (record.run.id, RUN, 0)):
        created_at = record.run.created_at
        yield _Expected(RunHeld(), _next_at(created_at, now) if silence_ms is None else created_at + LATE_MS)
    for p, pause in enumerate(record.run.pauses):
        if pause.status is PauseStatus.DELAYED:
            yield _Expected(DelayEnded(p), pause.due_at + LATE_MS, pause.due_at)
        elif pause.status is PauseStatus.AWAITING:
            yield _Expected(DeadlinePassed(p), pause.due_at + LATE_MS, pause.due_at)
    for timeout in open_timers(record.plan, record.run):
        yield _Expected(timeout.timer.fact(), timeout.due_at + LATE_MS, timeout.due_at)


def _next_at(since: int, now: int) -> int:
    """When to make the engine look again at a start that waits for a limit, after growing times.

    That is needed only if the look of the start before it was lost. A time of the last minutes counts as the next one,
    because runs are checked every eight minutes.
    """
    waited = LATE_MS
    while since + waited <= now - _CHECKED_MS:
        waited += min(waited, _LONGEST_GAP_MS)
    return since + waited


# --- facts in messages -----------------------------------------------------------------------------------------------


def to_rows(facts: Sequence[Fact]) -> list[list[str | int]]:
    return [
        [_UNDECIDED, fact.step, fact.attempt]  # an approval without a decision has a fixed outcome
        if isinstance(fact, AttemptEnded)
        else [type(fact).__name__, *(int(getattr(fact, field.name)) for field in fields(fact))]
        for fact in facts
    ]


def from_rows(rows: Sequence[Sequence[Any]], plan: Plan) -> list[Fact]:
    return [_silent(fact, plan) for name, *numbers in rows if (fact := _FACTS[name](*numbers))]


def _silent(fact: Fact, plan: Plan) -> Fact:
    """The fact, or a failure if it is the loss of an attempt of a Lambda that Stepwell did not create.

    Lambda reports every end of an invocation except two: an answer that is too long, and one that the role may not
    send. Neither can happen with the Lambdas that Stepwell creates. With others, another attempt would end likewise.
    """
    arn = plan.steps[fact.step].runtime.arn if isinstance(fact, AttemptLost) else None
    if arn is None or not isinstance(fact, AttemptLost):
        return fact
    text = (
        f"no answer from {arn}: either the answer was about 1 MB or more, which Lambda drops (return less, and pass a"
        " reference to large data), or the Lambda's role may not send messages to the queue of outcomes (`stepwell"
        " push` prints the permission that it needs)"
    )
    return AttemptEnded(fact.step, fact.attempt, failure("no_answer", text, retryable=False))

"""What is late of a run, and when something of it will be.

Every timer can be derived again from its run, and an attempt that has been silent for longer than it could take was
lost, or, if its Lambda is not ours, has failed. One rule: what is only late is left alone, so that the sweeper never
overtakes a message that is on its way.
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
    RunStarted,
    Timer,
    TimerKind,
)
from stepwell.core.run.outcome import failure
from stepwell.core.run.run import PauseStatus, Run, StepStatus

LATE_MS = 120_000  # after which a timer's message is taken to be lost
_START_MS = 60_000
_UNDECIDED = "Undecided"
_FACTS: dict[str, Callable[..., Fact]] = {
    _UNDECIDED: lambda step, attempt: Timer(TimerKind.DECISION, step, attempt).fact(),
    **{function.__name__: function for function in (AttemptLost, DeadlinePassed, DelayEnded, RetryDue, RunStarted)},
}


class OpenRun(Protocol):
    """What is looked at. `causes`: for each step the message that claimed its attempt, and when."""

    @property
    def run(self) -> Run: ...
    @property
    def plan(self) -> Plan: ...
    @property
    def causes(self) -> Mapping[int, tuple[str, int]]: ...


class _Expected(NamedTuple):
    """A fact that should come, the time (ms) from which on it is late, and when its timer is due, if it has one."""

    fact: Fact
    late_at: int
    timer: int | None = None


def overdue(record: OpenRun, now: int, event_age_ms: int, silence_ms: int | None = None) -> list[Fact]:
    """The facts that should have come for this run by now. An attempt is lost once it was silent for longer than it may
    wait and run, or for `silence_ms`."""
    return [expected.fact for expected in _expected(record, event_age_ms, silence_ms) if expected.late_at <= now]


def next_look(record: OpenRun, now: int, event_age_ms: int) -> int | None:
    """When a fact of this run may be late for the first time, if nothing else happens to it; None if only far timers
    are outstanding. A far timer is an item of its own, which is sent again until the run has acted upon it."""
    expected = _expected(record, event_age_ms, None)
    return min(
        (expected.late_at for expected in expected if expected.timer is None or expected.timer - now <= MAX_DELAY_MS),
        default=None,
    )


def _expected(record: OpenRun, event_age_ms: int, silence_ms: int | None) -> Iterator[_Expected]:
    steps = record.plan.steps
    for i, step in enumerate(record.run.steps):
        if step.status is StepStatus.RUNNING and steps[i].is_approval:
            due_at = step.at + steps[i].timeout_ms
            yield _Expected(Timer(TimerKind.DECISION, i, step.attempt).fact(), due_at + LATE_MS, due_at)
        elif step.status is StepStatus.RUNNING:
            claimed = max(step.at, record.causes.get(i, ("", 0))[1])
            longest = event_age_ms + steps[i].timeout_ms + _START_MS
            yield _Expected(AttemptLost(i, step.attempt), claimed + (longest if silence_ms is None else silence_ms))
        elif step.status is StepStatus.RETRYING:
            yield _Expected(RetryDue(i, step.attempt), step.at + LATE_MS, step.at)
        elif step.status is StepStatus.QUEUED:
            yield _Expected(RunStarted(), step.at + LATE_MS)  # which is stale, and so asks for what the run is owed
    for p, pause in enumerate(record.run.pauses):
        if pause.status is PauseStatus.DELAYED:
            yield _Expected(DelayEnded(p), pause.due_at + LATE_MS, pause.due_at)
        elif pause.status is PauseStatus.AWAITING:
            yield _Expected(DeadlinePassed(p), pause.due_at + LATE_MS, pause.due_at)


# --- as a message ----------------------------------------------------------------------------------------------------


def to_rows(facts: Sequence[Fact]) -> list[list[str | int]]:
    return [
        [_UNDECIDED, fact.step, fact.attempt]  # the one way to end that takes no outcome
        if isinstance(fact, AttemptEnded)
        else [type(fact).__name__, *(getattr(fact, field.name) for field in fields(fact))]
        for fact in facts
    ]


def from_rows(rows: Sequence[Sequence[Any]], plan: Plan) -> list[Fact]:
    return [_silent(fact, plan) for name, *numbers in rows if (fact := _FACTS[name](*numbers))]


def _silent(fact: Fact, plan: Plan) -> Fact:
    """Lambda tells of whatever ends an invocation, but of an answer that is too long, or that a role may not send, it
    tells nobody. Of our own Lambdas neither can be; another try of somebody else's would end in the same way."""
    arn = plan.steps[fact.step].runtime.arn if isinstance(fact, AttemptLost) else None
    if arn is None or not isinstance(fact, AttemptLost):
        return fact
    text = (
        f"no answer of {arn} came, as when it answers about 1 MB or more, which Lambda drops (answer less, and pass a"
        " reference to large data), or its role may not send messages to the queue of outcomes (`stepwell push` says"
        " what it needs)"
    )
    return AttemptEnded(fact.step, fact.attempt, failure("no_answer", text, retryable=False))

"""When facts of a run are overdue, to the millisecond, and when the sweeper checks the run next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pytest

from stepwell.aws.engine.sweep import LATE_MS, from_rows, next_check_at, overdue, to_rows
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
    RunTimedOut,
    Timer,
    TimerKind,
)
from stepwell.core.run.run import EdgeStatus, PauseStatus, Run, StepState, StepStatus
from stepwell.testing.batches import Json, handler_step
from tests.aws.run_states import NOW, RunStates

AGE_MS, STEP_MS, START_MS, ASK_MS = 3_600_000, 30_000, 60_000, 600_000
HOUR_MS = 3_600_000
ARN = "arn:aws:lambda:eu-west-1:123456789012:function:mine"
STEPS: Json = {
    "a": handler_step(timeout="30s"),
    "ask": {"runtime": {"type": "approval", "message": "Really?"}, "timeout": "10m"},
    "mine": handler_step(runtime={"type": "lambda", "arn": ARN}, timeout="30s"),
    "b": handler_step({"step": "a", "wait": "10m", "async": {"event": "paid", "ttl": "1h"}}),
}
STATES = RunStates(STEPS)
SENDING = RunStates({"tell": {"runtime": {"type": "emit", "event": "told"}}})
LIMITED = RunStates(STEPS, timeouts={"start": "1h", "finish": "2h"})
BEGUN = LIMITED.with_pause(PauseStatus.ELAPSED)._replace(edges=(EdgeStatus.SATISFIED, *LIMITED.some.edges[1:]))
PLAN, with_step, with_pause = STATES.plan, STATES.with_step, STATES.with_pause
UNDECIDED = Timer(TimerKind.DECISION, 1, 1).fact()


class Open(NamedTuple):
    run: Run
    plan: Plan = PLAN
    causes: Mapping[int, tuple[str, int]] = {}


LATE: dict[str, tuple[Open, Fact, int]] = {
    "a delay": (Open(with_pause(PauseStatus.DELAYED)), DelayEnded(0), NOW + LATE_MS),
    "a deadline": (Open(with_pause(PauseStatus.AWAITING)), DeadlinePassed(0), NOW + LATE_MS),
    "a retry": (Open(with_step(0, StepStatus.RETRYING, 3)), RetryDue(0, 3), NOW + LATE_MS),
    "a decision": (Open(with_step(1, StepStatus.RUNNING)), UNDECIDED, NOW + ASK_MS + LATE_MS),
    "a start": (Open(with_step(0, StepStatus.QUEUED)), RunStarted(), NOW + LATE_MS),
    "an outcome": (Open(with_step(0, StepStatus.RUNNING, 2)), AttemptLost(0, 2), NOW + AGE_MS + STEP_MS + START_MS),
    "a run that has not started": (
        Open(BEGUN, LIMITED.plan),
        RunTimedOut(TimerKind.START),
        NOW + HOUR_MS + LATE_MS,
    ),
    "a run that has not finished": (
        Open(BEGUN._replace(started_at=NOW + 7), LIMITED.plan),
        RunTimedOut(TimerKind.FINISH),
        NOW + 7 + 2 * HOUR_MS + LATE_MS,
    ),
    "the sending of an event": (
        Open(SENDING.with_step(0, StepStatus.RUNNING), SENDING.plan),
        AttemptLost(0, 1),
        NOW + 600_000,
    ),
    "an outcome of a later claim": (
        Open(with_step(0, StepStatus.RUNNING), causes={0: ("again", NOW + 5)}),
        AttemptLost(0, 1),
        NOW + 5 + AGE_MS + STEP_MS + START_MS,
    ),
}
FAR = {  # when these timers are due
    "a delay": NOW,
    "a deadline": NOW,
    "a retry": NOW,
    "a decision": NOW + ASK_MS,
    "a run that has not started": NOW + HOUR_MS,
    "a run that has not finished": NOW + 7 + 2 * HOUR_MS,
}


@pytest.mark.parametrize("name", LATE)
def test_a_fact_is_late_some_time_after_it_should_have_come(name: str) -> None:
    record, fact, late_at = LATE[name]
    assert overdue(record, late_at - 1, AGE_MS) == []
    assert overdue(record, late_at, AGE_MS) == [fact]


def test_an_attempt_counts_as_lost_after_a_silence_that_somebody_else_chooses() -> None:
    record = Open(with_step(0, StepStatus.RUNNING), causes={0: ("again", NOW + 5)})
    assert overdue(record, NOW + 104, AGE_MS, silence_ms=100) == []
    assert overdue(record, NOW + 105, AGE_MS, silence_ms=100) == [AttemptLost(0, 1)]
    assert overdue(record, NOW + 5, AGE_MS, silence_ms=0) == [AttemptLost(0, 1)]


@pytest.mark.parametrize("status", [StepStatus.PENDING, StepStatus.COMPLETED, StepStatus.FAILED, StepStatus.CANCELLED])
def test_nothing_is_late_of_a_step_that_nothing_is_expected_of(status: StepStatus) -> None:
    assert overdue(Open(with_step(0, status)), NOW + 10**12, AGE_MS) == []
    assert next_check_at(Open(with_step(0, status)), NOW, AGE_MS) is None


@pytest.mark.parametrize("name", LATE)
def test_a_run_is_looked_at_when_the_first_fact_is_late_and_a_far_timer_needs_no_look(name: str) -> None:
    """A far timer is a separate item, which is sent until the run has handled it."""
    record, _, late_at = LATE[name]
    due_at = FAR.get(name, late_at)
    assert next_check_at(record, due_at - MAX_DELAY_MS, AGE_MS) == late_at
    expected = None if name in FAR else late_at
    assert next_check_at(record, due_at - MAX_DELAY_MS - 1, AGE_MS) == expected


def test_the_first_of_what_may_be_late_decides_when_a_run_is_looked_at() -> None:
    steps = list(with_step(0, StepStatus.RUNNING).steps)
    steps[2] = StepState(StepStatus.RETRYING, 1, at=NOW + 1000)
    run = with_pause(PauseStatus.DELAYED)._replace(steps=tuple(steps))
    record = Open(run)
    assert next_check_at(record, NOW, AGE_MS) == NOW + LATE_MS
    assert len(overdue(record, NOW + 10**9, AGE_MS)) == 3


def test_facts_are_the_same_when_they_come_back_as_a_message() -> None:
    facts: list[Fact] = [
        *(AttemptLost(0, 2), RetryDue(0, 3), RunStarted(), DelayEnded(0), UNDECIDED),
        DeadlinePassed(0),
        DeadlinePassed(0, 7),
        RunTimedOut(TimerKind.START),
        RunTimedOut(TimerKind.FINISH),
    ]
    assert all(isinstance(value, str) or type(value) is int for row in to_rows(facts) for value in row)
    assert from_rows(to_rows(facts), PLAN) == facts


def test_a_lambda_of_somebody_else_that_said_nothing_has_failed_for_good() -> None:
    (ended,) = from_rows(to_rows([AttemptLost(2, 4)]), PLAN)
    assert isinstance(ended, AttemptEnded)
    assert (ended.step, ended.attempt, ended.outcome.retryable) == (2, 4, False)
    assert ended.outcome.error is not None
    assert ended.outcome.error.kind == "no_answer"

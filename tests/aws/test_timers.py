"""Timers of a run: when they are due, whether anything waits for them, and how they are stored."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from stepwell.aws.clients import client
from stepwell.aws.engine.timers import AHEAD_MS, Timers
from stepwell.aws.queues.messages import MAX_DELAY_MS
from stepwell.aws.resources import Resources
from stepwell.aws.table.items import read_item
from stepwell.aws.table.keys import timer_key
from stepwell.core.run.messages import Timer, TimerKind
from stepwell.core.run.run import PauseState, PauseStatus, Run, RunStatus, StepStatus, new_run
from stepwell.testing.batches import Json, handler_step
from tests.aws.conftest import RESOURCES
from tests.aws.run_states import NOW, RunStates

TIMEOUT, SKEW = 600_000, 2_000
RETRY, DECISION, DELAY, DEADLINE = TimerKind.RETRY, TimerKind.DECISION, TimerKind.DELAY, TimerKind.DEADLINE
HANDLER, APPROVAL = 0, 1  # steps
STEPS: Json = {
    "a": handler_step(),
    "ask": {"runtime": {"type": "approval", "message": "Really?"}, "timeout": "10m"},
    "b": handler_step({"step": "a", "wait": "10m", "async": {"event": "paid", "ttl": "1h"}}),
}
STATES = RunStates(STEPS)
PLAN, with_step, with_pause = STATES.plan, STATES.with_step, STATES.with_pause
NOT_SET, OVER = "nothing has waited for it yet", "nothing waits for it any more"


def timers(resources: Resources = RESOURCES) -> Timers:
    return Timers(replace(resources, clock_skew_ms=SKEW))


STANDINGS: dict[str, tuple[Run, Timer, Any]] = {
    "a retry that is due": (with_step(HANDLER, StepStatus.RETRYING), Timer(RETRY, HANDLER, 1), NOW),
    "a retry of a step that did not begin": (with_step(HANDLER, StepStatus.PENDING, 0), Timer(RETRY, 0, 1), NOT_SET),
    "a retry of an attempt that is queued": (with_step(HANDLER, StepStatus.QUEUED), Timer(RETRY, 0, 1), NOT_SET),
    "a retry of an attempt that runs": (with_step(HANDLER, StepStatus.RUNNING), Timer(RETRY, 0, 1), NOT_SET),
    "a retry of a later attempt": (with_step(HANDLER, StepStatus.RETRYING), Timer(RETRY, 0, 2), NOT_SET),
    "a retry of an earlier attempt": (with_step(HANDLER, StepStatus.RETRYING, 2), Timer(RETRY, 0, 1), OVER),
    "a retry that runs": (with_step(HANDLER, StepStatus.RUNNING, 2), Timer(RETRY, 0, 1), OVER),
    "a retry of a step that completed": (with_step(HANDLER, StepStatus.COMPLETED), Timer(RETRY, 0, 1), OVER),
    "a retry of a step that was cancelled": (with_step(HANDLER, StepStatus.CANCELLED), Timer(RETRY, 0, 1), OVER),
    "an approval": (with_step(APPROVAL, StepStatus.RUNNING), Timer(DECISION, APPROVAL, 1), NOW + TIMEOUT),
    "an approval that did not begin": (with_step(APPROVAL, StepStatus.PENDING, 0), Timer(DECISION, 1, 1), NOT_SET),
    "an approval that is queued": (with_step(APPROVAL, StepStatus.QUEUED), Timer(DECISION, 1, 1), NOT_SET),
    "a later attempt of an approval": (with_step(APPROVAL, StepStatus.RUNNING), Timer(DECISION, 1, 2), NOT_SET),
    "an earlier attempt of an approval": (with_step(APPROVAL, StepStatus.RUNNING, 2), Timer(DECISION, 1, 1), OVER),
    "an approval that was decided": (with_step(APPROVAL, StepStatus.COMPLETED), Timer(DECISION, 1, 1), OVER),
    "an approval that was cancelled": (with_step(APPROVAL, StepStatus.CANCELLED), Timer(DECISION, 1, 1), OVER),
    "a step that asks nobody": (with_step(HANDLER, StepStatus.RUNNING), Timer(DECISION, HANDLER, 1), NOT_SET),
    "a delay": (with_pause(PauseStatus.DELAYED), Timer(DELAY, 0), NOW),
    "a delay that did not begin": (with_pause(PauseStatus.IDLE), Timer(DELAY, 0), NOT_SET),
    "a delay that became a wait": (with_pause(PauseStatus.AWAITING), Timer(DELAY, 0), OVER),
    "a delay that ended": (with_pause(PauseStatus.ELAPSED), Timer(DELAY, 0), OVER),
    "a delay that was dropped": (with_pause(PauseStatus.DROPPED), Timer(DELAY, 0), OVER),
    "a deadline": (with_pause(PauseStatus.AWAITING), Timer(DEADLINE, 0), NOW + SKEW),
    "a deadline of a wait that did not begin": (with_pause(PauseStatus.IDLE), Timer(DEADLINE, 0), NOT_SET),
    "a deadline while the delay before it runs": (with_pause(PauseStatus.DELAYED), Timer(DEADLINE, 0), NOT_SET),
    "a deadline of a wait that was satisfied": (with_pause(PauseStatus.MATCHED), Timer(DEADLINE, 0), OVER),
    "a deadline that has passed": (with_pause(PauseStatus.EXPIRED), Timer(DEADLINE, 0), OVER),
    "a deadline of a wait that was dropped": (with_pause(PauseStatus.DROPPED), Timer(DEADLINE, 0), OVER),
    "a step that is none": (with_step(APPROVAL, StepStatus.RETRYING), Timer(RETRY, -2, 1), NOT_SET),
    "a pause that is none": (with_pause(PauseStatus.DELAYED), Timer(DELAY, -1), NOT_SET),
}


@pytest.mark.parametrize("name", STANDINGS)
def test_a_timer_is_due_when_its_run_says_so_to_the_millisecond(name: str) -> None:
    """A timer for which nothing waits may still arrive: it has no effect."""
    run, timer, stands = STANDINGS[name]
    every, ever = timers(), NOW + 10**12
    assert every.is_settled(PLAN, run, timer) is (stands in (NOT_SET, OVER))
    if isinstance(stands, int):
        assert [every.is_over(PLAN, run, timer, now) for now in (stands - 1, stands)] == [False, True]
        assert every.is_due(PLAN, run, timer, stands)
        assert not every.is_due(PLAN, run, timer, stands - 1)
    else:
        assert every.is_over(PLAN, run, timer, ever) is (stands == OVER)
        assert every.is_due(PLAN, run, timer, ever) is (stands == OVER)


LIMITED = RunStates(STEPS, timeouts={"start": "1h", "finish": "2h"})
NEW = LIMITED.some._replace(edges=with_pause(PauseStatus.DELAYED).edges)
STARTED = NEW._replace(started_at=NOW + 7)
START, FINISH = Timer(TimerKind.START, 0), Timer(TimerKind.FINISH, 0)


@pytest.mark.parametrize(
    ("run", "timer", "due_at"),
    [
        (NEW, START, NOW + 3_600_000),
        (STARTED, START, OVER),
        (NEW._replace(status=RunStatus.CANCELLED), START, OVER),
        (NEW, FINISH, NOT_SET),
        (STARTED, FINISH, NOW + 7 + 7_200_000),
        (STARTED._replace(status=RunStatus.FAILED), FINISH, OVER),
    ],
)
def test_a_timeout_of_a_run_is_due_when_the_run_says_so(run: Run, timer: Timer, due_at: int | str) -> None:
    every, plan = timers(), LIMITED.plan
    assert every.is_settled(plan, run, timer) is (due_at in (NOT_SET, OVER))
    if isinstance(due_at, int):
        assert [every.is_due(plan, run, timer, now) for now in (due_at - 1, due_at)] == [False, True]
        assert every.item_of(plan, run, timer, due_at - AHEAD_MS - 1) == [timer_key("run", timer, due_at)]
        assert every.item_of(plan, run, timer, due_at - AHEAD_MS) == []
    else:
        assert every.is_due(plan, run, timer, NOW + 10**12) is (due_at == OVER)
    assert not every.is_due(PLAN, run, timer, NOW + 10**12), "the function has no timeouts"


# --- how timers are stored -------------------------------------------------------------------------------------------


def sent(resources: Resources) -> list[Json]:
    """The messages of the queue that are due."""
    sqs = client("sqs")
    found = sqs.receive_message(QueueUrl=resources.outcomes_queue, MaxNumberOfMessages=10).get("Messages", [])
    return [json.loads(message["Body"]) for message in found]


def far_items(resources: Resources, timer: Timer, due_at: int) -> list[Json]:
    item = read_item(resources.table, timer_key("run", timer, due_at))
    return [] if item is None else [item]


@pytest.mark.parametrize("kind", TimerKind, ids=lambda kind: kind.name.lower())
@pytest.mark.parametrize("more", [0, 1])
def test_a_timer_is_either_a_message_or_an_item(resources: Resources, clock: Any, kind: TimerKind, more: int) -> None:
    """A timer is a message as long as SQS can delay it. The message of a deadline arrives later than the deadline."""
    every, timer, skew = timers(resources), Timer(kind, 0, 1), SKEW if kind is DEADLINE else 0
    due_at = NOW + MAX_DELAY_MS + more
    every.set_near("run", timer, due_at - skew, NOW)
    every.set_far("run", timer, due_at - skew, NOW)
    every.send(NOW)
    every.send(NOW)  # nothing of it is left
    clock.shift(MAX_DELAY_MS / 1000 + 1)
    assert [message["due"] for message in sent(resources)] == ([due_at] if more == 0 else [])
    assert len(far_items(resources, timer, due_at)) == more


@pytest.mark.parametrize("wait_ms", [60_000, 3_600_000])
def test_a_timer_that_comes_too_early_is_kept_for_its_time(resources: Resources, clock: Any, wait_ms: int) -> None:
    every = timers(resources)
    run = new_run("run", PLAN, NOW)._replace(pauses=(PauseState(PauseStatus.DELAYED, NOW + wait_ms),))
    assert not every.is_due(PLAN, run, Timer(DELAY, 0), NOW)
    every.send(NOW)
    clock.shift(wait_ms / 1000)
    kept = [message["due"] for message in sent(resources)] + far_items(resources, Timer(DELAY, 0), NOW + wait_ms)
    assert len(kept) == 1


FAR = {
    RETRY: (Timer(RETRY, HANDLER, 1), with_step(HANDLER, StepStatus.RETRYING), NOW),
    DECISION: (Timer(DECISION, APPROVAL, 1), with_step(APPROVAL, StepStatus.RUNNING), NOW + TIMEOUT),
    DELAY: (Timer(DELAY, 0), with_pause(PauseStatus.DELAYED), NOW),
    DEADLINE: (Timer(DEADLINE, 0), with_pause(PauseStatus.AWAITING), NOW + SKEW),
}


@pytest.mark.parametrize("kind", FAR, ids=lambda kind: kind.name.lower())
def test_the_item_of_a_timer_that_nobody_needs_goes_unless_it_may_be_a_message_already(kind: TimerKind) -> None:
    timer, before, due_at = FAR[kind]
    assert timers().item_of(PLAN, before, timer, due_at - AHEAD_MS - 1) == [timer_key("run", timer, due_at)]
    assert timers().item_of(PLAN, before, timer, due_at - AHEAD_MS) == []

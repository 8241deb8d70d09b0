"""Timers: near timers are delayed SQS messages, far timers are items that `tick` turns into such messages.

Far timers are sorted by due time (ADR 6). The item is written before the run that needs it, and exists until the run
has handled the timer. A timer's message is not trusted, because steps may send messages too. So the run decides whether
a timer is due.
"""

from __future__ import annotations

import logging

from stepwell.aws.clients import client
from stepwell.aws.queues.messages import MAX_DELAY_MS, delay_s, entry, timer_message
from stepwell.aws.queues.outbox import send_messages
from stepwell.aws.resources import Resources
from stepwell.aws.table.keys import Item, Key, timer_key
from stepwell.core.plan import Plan
from stepwell.core.run import timeouts
from stepwell.core.run.messages import Timer, TimerKind
from stepwell.core.run.run import ENDED_STEPS, PauseStatus, Run, StepStatus
from stepwell.core.run.timeouts import TIMEOUT_NAMES

log = logging.getLogger("stepwell.aws")
AHEAD_MS = 10 * 60_000  # how early `tick` sends the message of a far timer


class Timers:
    """Sets timers, and decides whether the message of a timer is due."""

    def __init__(self, resources: Resources) -> None:
        self._table, self._queue, self._skew = resources.table, resources.outcomes_queue, resources.clock_skew_ms
        self._near: list[tuple[str, Timer, int]] = []

    def set_near(self, run_id: str, timer: Timer, due_at: int, now: int) -> None:
        """Adds a near timer to the messages of the next `send`. Ignores far timers."""
        due_at += self._clock_skew(timer)
        if due_at - now <= MAX_DELAY_MS:
            self._near.append((run_id, timer, due_at))

    def set_far(self, run_id: str, timer: Timer, due_at: int, now: int) -> None:
        """Writes the item of a far timer at once. Ignores near timers."""
        due_at += self._clock_skew(timer)
        if due_at - now > MAX_DELAY_MS:
            item = {**timer_key(run_id, timer, due_at), "r": {"S": run_id}, "t": _text(timer)}
            client("dynamodb").put_item(TableName=self._table, Item=item)

    def is_due(self, plan: Plan, run: Run, timer: Timer, now: int) -> bool:
        """Whether the message of a timer may be handled. A timer that is too early is set again."""
        due_at = _due_at(plan, run, timer)
        if due_at is None:
            log.error("timer refused, the run has not set it: run %s, %s", run.id, timer)
            return False
        if due_at + self._clock_skew(timer) <= now:
            return True
        self.set_near(run.id, timer, due_at, now)
        self.set_far(run.id, timer, due_at, now)
        return False

    def is_over(self, plan: Plan, run: Run, timer: Timer, now: int) -> bool:
        """Whether the timer is due, or nothing waits for it any longer."""
        due_at = _due_at(plan, run, timer)
        return due_at is not None and due_at + self._clock_skew(timer) <= now

    def is_settled(self, plan: Plan, run: Run, timer: Timer) -> bool:
        """Whether nothing in the run waits for the timer."""
        return not _due_at(plan, run, timer)

    def item_of(self, plan: Plan, before: Run, timer: Timer, now: int) -> list[Key]:
        """The key of the item of a cleared timer, if it is a far timer whose message was not sent yet.

        A message that was sent has no effect, because nothing waits for the timer.
        """
        if timer.kind in TIMEOUT_NAMES:
            due_at = timeouts.due_at(plan, before, timer) or 0
        elif timer.kind is TimerKind.RETRY:
            due_at = before.steps[timer.index].at
        elif timer.kind is TimerKind.DECISION:
            due_at = before.steps[timer.index].at + plan.steps[timer.index].timeout_ms
        else:
            due_at = before.pauses[timer.index].due_at + self._clock_skew(timer)
        return [timer_key(before.id, timer, due_at)] if due_at - now > AHEAD_MS else []

    def send(self, now: int) -> None:
        """Sends the near timers that were set since the last call. Raises NotSent."""
        near, self._near = self._near, []
        send_messages(
            self._queue, [entry(timer_message(run, timer, due), delay_s(due, now)) for run, timer, due in near]
        )

    def _clock_skew(self, timer: Timer) -> int:
        """How much later (ms) than due a timer fires. A deadline waits for events that a Lambda with another clock
        accepted just before it."""
        return self._skew if timer.kind is TimerKind.DEADLINE else 0


def _due_at(plan: Plan, run: Run, timer: Timer) -> int | None:
    """When a timer is due (ms). 0 if nothing waits for it any longer; None if the run has not set it yet."""
    if timer.index < 0:
        return None
    if timer.kind in TIMEOUT_NAMES:
        return timeouts.due_at(plan, run, timer)
    if timer.kind is TimerKind.RETRY:
        step = run.steps[timer.index]
        if step.attempt > timer.attempt or step.status in ENDED_STEPS:
            return 0
        return step.at if (step.status, step.attempt) == (StepStatus.RETRYING, timer.attempt) else None
    if timer.kind in (TimerKind.DECISION, TimerKind.OVERDUE):
        step = run.steps[timer.index]
        is_open = (step.status, step.attempt) == (StepStatus.RUNNING, timer.attempt)
        if is_open and plan.steps[timer.index].has_timer:
            return step.at + plan.steps[timer.index].timeout_ms
        return 0 if step.attempt > timer.attempt or step.status in ENDED_STEPS else None
    pause = run.pauses[timer.index]
    waiting, before = PauseStatus.DELAYED, {PauseStatus.IDLE}
    if timer.kind is TimerKind.DEADLINE:
        waiting, before = PauseStatus.AWAITING, {PauseStatus.IDLE, PauseStatus.DELAYED}
    return pause.due_at if pause.status is waiting else None if pause.status in before else 0


def _text(timer: Timer) -> Item:
    return {"S": f"{int(timer.kind)}.{timer.index}.{timer.attempt}"}

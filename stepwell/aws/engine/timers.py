"""Timers: near ones are messages that SQS delays, far ones items that `tick` turns into such messages in time.

A far timer is found by its due time (ADR 6). It is written before the run that needs it, and is there until the run has
acted upon it. One rule: whoever may send messages of the queue can send any, so that what is due is what the run says.
"""

from __future__ import annotations

import logging

from stepwell.aws.clients import client
from stepwell.aws.queues.messages import MAX_DELAY_MS, delay_s, entry, timer_message
from stepwell.aws.queues.outbox import send_messages
from stepwell.aws.resources import Resources
from stepwell.aws.table.keys import Item, Key, timer_key
from stepwell.core.plan import Plan
from stepwell.core.run.messages import Timer, TimerKind
from stepwell.core.run.run import ENDED_STEPS, PauseStatus, Run, StepStatus

log = logging.getLogger("stepwell.aws")
AHEAD_MS = 10 * 60_000  # how early `tick` takes a far timer


class Timers:
    def __init__(self, resources: Resources) -> None:
        self._table, self._queue, self._skew = resources.table, resources.outcomes_queue, resources.clock_skew_ms
        self._near: list[tuple[str, Timer, int]] = []

    def set_near(self, run_id: str, timer: Timer, due_at: int, now: int) -> None:
        """If it is a near one: send it with the others of its batch."""
        due_at += self._late(timer)
        if due_at - now <= MAX_DELAY_MS:
            self._near.append((run_id, timer, due_at))

    def set_far(self, run_id: str, timer: Timer, due_at: int, now: int) -> None:
        """If it is a far one: write it, at once."""
        due_at += self._late(timer)
        if due_at - now > MAX_DELAY_MS:
            item = {**timer_key(run_id, timer, due_at), "r": {"S": run_id}, "t": _named(timer)}
            client("dynamodb").put_item(TableName=self._table, Item=item)

    def is_due(self, plan: Plan, run: Run, timer: Timer, now: int) -> bool:
        """Whether a message of this timer may be acted upon. One that comes too early is sent again, for its time."""
        due_at = _due_at(plan, run, timer)
        if due_at is None:
            log.error("a timer %s that run %s has not set is refused", timer, run.id)
            return False
        if due_at + self._late(timer) <= now:
            return True
        self.set_near(run.id, timer, due_at, now)
        self.set_far(run.id, timer, due_at, now)
        return False

    def is_over(self, plan: Plan, run: Run, timer: Timer, now: int) -> bool:
        """Whether the time that this timer is for has come, or nothing waits for it any more."""
        due_at = _due_at(plan, run, timer)
        return due_at is not None and due_at + self._late(timer) <= now

    def is_settled(self, plan: Plan, run: Run, timer: Timer) -> bool:
        """Whether nothing waits for this timer."""
        return not _due_at(plan, run, timer)

    def item_of(self, plan: Plan, before: Run, timer: Timer, now: int) -> list[Key]:
        """The item of a timer that is not needed any more, if it is a far one. One that is a message already will find
        that nothing waits for it."""
        if timer.kind is TimerKind.RETRY:
            due_at = before.steps[timer.index].at
        elif timer.kind is TimerKind.DECISION:
            due_at = before.steps[timer.index].at + plan.steps[timer.index].timeout_ms
        else:
            due_at = before.pauses[timer.index].due_at + self._late(timer)
        return [timer_key(before.id, timer, due_at)] if due_at - now > AHEAD_MS else []

    def send(self, now: int) -> None:
        """Send the near timers that were set. Raises NotSent."""
        near, self._near = self._near, []
        send_messages(
            self._queue, [entry(timer_message(run, timer, due), delay_s(due, now)) for run, timer, due in near]
        )

    def _late(self, timer: Timer) -> int:
        """An event that a clock ahead of ours accepted just before the deadline must be there by then."""
        return self._skew if timer.kind is TimerKind.DEADLINE else 0


def _due_at(plan: Plan, run: Run, timer: Timer) -> int | None:
    """0 if nothing waits for it any more, and so nothing comes of it; None if nothing has waited for it yet."""
    if timer.index < 0:
        return None
    if timer.kind is TimerKind.RETRY:
        step = run.steps[timer.index]
        if step.attempt > timer.attempt or step.status in ENDED_STEPS:
            return 0
        return step.at if (step.status, step.attempt) == (StepStatus.RETRYING, timer.attempt) else None
    if timer.kind is TimerKind.DECISION:
        step = run.steps[timer.index]
        if (step.status, step.attempt) == (StepStatus.RUNNING, timer.attempt) and plan.steps[timer.index].is_approval:
            return step.at + plan.steps[timer.index].timeout_ms
        return 0 if step.attempt > timer.attempt or step.status in ENDED_STEPS else None
    pause = run.pauses[timer.index]
    waiting, before = PauseStatus.DELAYED, {PauseStatus.IDLE}
    if timer.kind is TimerKind.DEADLINE:
        waiting, before = PauseStatus.AWAITING, {PauseStatus.IDLE, PauseStatus.DELAYED}
    return pause.due_at if pause.status is waiting else None if pause.status in before else 0


def _named(timer: Timer) -> Item:
    return {"S": f"{int(timer.kind)}.{timer.index}.{timer.attempt}"}

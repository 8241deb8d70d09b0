"""Handlers of messages about runs: due timers, overdue facts, waits, and ends of runs."""

from __future__ import annotations

import logging

from stepwell.aws.engine.batch import DynamoBatch
from stepwell.aws.engine.message_facts import NOTHING, MessageFacts
from stepwell.aws.engine.session import EngineSession
from stepwell.aws.engine.sweep import from_rows, overdue
from stepwell.aws.queues.messages import scan_name, sweep_name, wake_name
from stepwell.aws.queues.received_messages import ContinueScan, FactsOverdue, RunEnded, TimerDue, WakeMore
from stepwell.core.plan import Plan
from stepwell.core.run.messages import (
    AttemptEnded,
    AttemptLost,
    CancelRequested,
    DeadlinePassed,
    Fact,
    RunHeld,
    RunStarted,
    Timer,
    TimerKind,
)
from stepwell.engine.scan import find_matching_event
from stepwell.platform import Cause, RunFact

log = logging.getLogger("stepwell.aws")


class RunMessages:
    """One method for each kind of message about runs."""

    def __init__(self, session: EngineSession) -> None:
        self._store, self._engine, self._tokens = session.store, session.engine, session.tokens
        self._timers, self._wait_pages, self._containers = (
            session.timers,
            session.wait_pages,
            session.dispatcher.containers,
        )

    def timer_due(self, batch: DynamoBatch, message: TimerDue, cause: Cause) -> MessageFacts:
        run_id, timer = message.run_id, message.timer
        record = batch.load([run_id]).get(run_id)
        if message.item is not None and message.due <= batch.now:
            batch.forget_timer(message.item, None if record is None else run_id, timer)
        if record is None or not self._timers.is_due(record.plan, record.run, timer, batch.now):
            return NOTHING
        return MessageFacts(facts=[RunFact(run_id, timer.fact(), cause)])

    def facts_overdue(self, batch: DynamoBatch, message: FactsOverdue, cause: Cause) -> MessageFacts:
        """The overdue facts that the sweeper found, without timers that are not late by this clock.

        The clock of the sweeper may be ahead. The container of a lost attempt is stopped.
        """
        run_id, rows = message.run_id, message.rows
        if not self._tokens.is_valid(message.token, *sweep_name(run_id, rows)):
            log.error("overdue facts refused, token not valid: run %r", run_id)
            return NOTHING
        record = batch.load([run_id]).get(run_id)
        if record is None:
            return NOTHING
        late = overdue(record, batch.now, 0)
        facts = [
            fact
            for fact in from_rows(rows, record.plan)
            if fact in late or _is_stale(fact) or _is_silence(fact, record.plan)
        ]
        batch.treat_as_wide(record)  # an earlier version of Stepwell left outcomes pending in any run with many steps
        for fact in facts:
            if isinstance(fact, AttemptLost) and record.plan.steps[fact.step].runtime.type == "docker":
                self._containers.stop(run_id, record.plan.steps[fact.step].id, fact.attempt)
        return MessageFacts(facts=[RunFact(run_id, fact, _again(fact, cause)) for fact in facts])

    def continue_scan(self, batch: DynamoBatch, message: ContinueScan, cause: Cause) -> MessageFacts:
        """The next event that satisfies a wait, or the passing of the deadline if the wait is over."""
        run_id, pause, after = message.run_id, message.pause, message.after
        if not self._tokens.is_valid(message.token, *scan_name(run_id, pause, after)):
            log.error("scan for events refused, token not valid: run %r, after %r", run_id, after)
            return NOTHING
        record = batch.load([run_id]).get(run_id)
        if record is None:
            return NOTHING
        deadline = Timer(TimerKind.DEADLINE, pause)
        if self._timers.is_over(record.plan, record.run, deadline, batch.now):  # or the wait is already satisfied
            return MessageFacts(facts=[RunFact(run_id, DeadlinePassed(pause, after), cause)])
        found = find_matching_event(batch, record, pause, after).found
        return NOTHING if found is None else MessageFacts(facts=[RunFact(run_id, found, cause)])

    def wake_more(self, batch: DynamoBatch, message: WakeMore, cause: Cause) -> MessageFacts:
        name = message.event_id, message.partition, message.after
        if not self._tokens.is_valid(message.token, *wake_name(*name)):
            log.error("waking of runs refused, token not valid: event %r", message.event_id)
            return NOTHING
        events = batch.events([message.event_id])
        waits = self._wait_pages.page(*name)
        return MessageFacts(facts=[f for e in events.values() for f in self._engine.wake(batch, e, waits, cause)])

    def run_ended(self, batch: DynamoBatch, message: RunEnded, cause: Cause) -> MessageFacts:
        """Sends what follows from the end of a run again. The cancel request has no effect on the run, because it has
        ended."""
        record = batch.load([message.run_id]).get(message.run_id)
        if record is None or record.run.ended_at is None:
            return NOTHING
        return MessageFacts(facts=[RunFact(message.run_id, CancelRequested(), cause)])


def _is_silence(fact: Fact, plan: Plan) -> bool:
    """Whether the fact is about an attempt that was silent for too long, and not about a late timer."""
    return isinstance(fact, AttemptLost | AttemptEnded) and fact.step not in plan.approval_steps


def _again(fact: Fact, cause: Cause) -> Cause:
    """The cause of an overdue fact. `RunStarted` and `RunHeld` are stale and only make the engine do again what the run
    still needs, which requires a redelivered cause."""
    return Cause(cause.id, redelivered=True) if _is_stale(fact) else cause


def _is_stale(fact: Fact) -> bool:
    """Whether the fact is stale in any case. If its message is redelivered, the claims of the message are repeated."""
    return isinstance(fact, RunStarted | RunHeld)

"""Handlers of the messages that bring a run on: timers, what the sweeper found, waits, and ends that must be told."""

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
    RunStarted,
    Timer,
    TimerKind,
)
from stepwell.engine.scan import find_matching_event
from stepwell.platform import Cause, RunFact

log = logging.getLogger("stepwell.aws")


class RunMessages:
    def __init__(self, session: EngineSession) -> None:
        self._store, self._engine, self._tokens = session.store, session.engine, session.tokens
        self._timers, self._waking, self._containers = session.timers, session.waking, session.dispatcher.containers

    def timer_due(self, batch: DynamoBatch, message: TimerDue, cause: Cause) -> MessageFacts:
        run_id, timer = message.run_id, message.timer
        record = batch.load([run_id]).get(run_id)
        if message.item is not None and message.due <= batch.now:
            batch.forget_timer(message.item, None if record is None else run_id, timer)
        if record is None or not self._timers.is_due(record.plan, record.run, timer, batch.now):
            return NOTHING
        return MessageFacts(facts=[RunFact(run_id, timer.fact(), cause)])

    def facts_overdue(self, batch: DynamoBatch, message: FactsOverdue, cause: Cause) -> MessageFacts:
        """What the sweeper found of a run, except timers that are not late by this clock: the sweeper's may be ahead. A
        container that was given up must not run on."""
        run_id, rows = message.run_id, message.rows
        if not self._tokens.is_valid(message.token, *sweep_name(run_id, rows)):
            log.error("a message that facts of run %r are overdue is refused", run_id)
            return NOTHING
        record = batch.load([run_id]).get(run_id)
        if record is None:
            return NOTHING
        late = overdue(record, batch.now, 0)
        facts = [fact for fact in from_rows(rows, record.plan) if fact in late or _is_silence(fact, record.plan)]
        batch.look_for_outcomes(record)  # an earlier version of Stepwell left outcomes to wait in any long run
        for fact in facts:
            if isinstance(fact, AttemptLost) and record.plan.steps[fact.step].runtime.type == "docker":
                self._containers.stop(run_id, record.plan.steps[fact.step].id, fact.attempt)
        return MessageFacts(facts=[RunFact(run_id, fact, _again(fact, cause)) for fact in facts])

    def look_further(self, batch: DynamoBatch, message: ContinueScan, cause: Cause) -> MessageFacts:
        """What satisfies a wait, or its end if nothing does and it is over."""
        run_id, pause, after = message.run_id, message.pause, message.after
        if not self._tokens.is_valid(message.token, *scan_name(run_id, pause, after)):
            log.error("a message that run %r is to look behind %r is refused", run_id, after)
            return NOTHING
        record = batch.load([run_id]).get(run_id)
        if record is None:
            return NOTHING
        deadline = Timer(TimerKind.DEADLINE, pause)
        if self._timers.is_over(record.plan, record.run, deadline, batch.now):  # or was satisfied
            return MessageFacts(facts=[RunFact(run_id, DeadlinePassed(pause, after), cause)])
        found = find_matching_event(batch, record, pause, after).found
        return NOTHING if found is None else MessageFacts(facts=[RunFact(run_id, found, cause)])

    def wake_more(self, batch: DynamoBatch, message: WakeMore, cause: Cause) -> MessageFacts:
        name = message.event_id, message.partition, message.after
        if not self._tokens.is_valid(message.token, *wake_name(*name)):
            log.error("a message that event %r wakes more runs is refused", message.event_id)
            return NOTHING
        events = batch.events([message.event_id])
        waits = self._waking.page(*name)
        return MessageFacts(facts=[f for e in events.values() for f in self._engine.wake(batch, e, waits, cause)])

    def run_ended(self, batch: DynamoBatch, message: RunEnded, cause: Cause) -> MessageFacts:
        """The end of a run, which is told again: to cancel what has ended changes nothing."""
        record = batch.load([message.run_id]).get(message.run_id)
        if record is None or record.run.ended_at is None:
            return NOTHING
        return MessageFacts(facts=[RunFact(message.run_id, CancelRequested(), cause)])


def _is_silence(fact: Fact, plan: Plan) -> bool:
    """Whether no timer is late, but an attempt was silent for too long."""
    return isinstance(fact, AttemptLost | AttemptEnded) and fact.step not in plan.approval_steps


def _again(fact: Fact, cause: Cause) -> Cause:
    """The cause of an overdue fact. That a run has started is stale: it asks for what the run is owed, which only a
    redelivered message may."""
    return Cause(cause.id, redelivered=True) if isinstance(fact, RunStarted) else cause

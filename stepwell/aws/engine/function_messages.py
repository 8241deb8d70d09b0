"""Handlers of messages about functions: cron ticks, the engine's own events, resumed and deleted functions."""

from __future__ import annotations

import logging
from itertools import islice

import orjson

from stepwell.aws.engine.batch import DynamoBatch
from stepwell.aws.engine.message_facts import NOTHING, MessageFacts
from stepwell.aws.engine.session import EngineSession
from stepwell.aws.observability import count
from stepwell.aws.queues.messages import (
    CANCEL,
    MAX_DELAY_MS,
    cancel_message,
    delay_s,
    entry,
    limit_message,
    limits_message,
    send_event_name,
    tick_message,
    tick_name,
)
from stepwell.aws.queues.outbox import send_messages
from stepwell.aws.queues.received_messages import CancelRuns, LimitDue, LimitsChanged, ReleaseEvents, SendEvent, TickDue
from stepwell.aws.table.permits import WaitedFor
from stepwell.core.events.cron import tick_event
from stepwell.core.events.events import event_from, run_id
from stepwell.core.run.messages import CancelRequested
from stepwell.engine.accept import resume
from stepwell.platform import Cause, Effects, IncomingEvent, RunFact

log = logging.getLogger("stepwell.aws")
_CANCELLED_AT_ONCE = 100


class FunctionMessages:
    """One method for each kind of message about functions."""

    def __init__(self, session: EngineSession) -> None:
        self._store, self._engine, self._tokens = session.store, session.engine, session.tokens
        self._limits = session.limits
        self._dispatcher, self._queue = session.dispatcher, session.resources.outcomes_queue
        self._cache_ms = round(session.resources.cache_s * 1000)

    def tick_due(self, batch: DynamoBatch, message: TickDue, cause: Cause) -> MessageFacts:
        """The event of a cron tick. Nothing if the trigger no longer exists or the function is paused."""
        function_id, cron, timezone, at = message.function_id, message.cron, message.timezone, message.at
        if not self._tokens.is_valid(message.token, *tick_name(function_id, cron, timezone, at)):
            count("OutcomesRefused")
            log.error("tick refused, token not valid: function %r, at %r", function_id, at)
            return NOTHING
        plan = batch.catalog().live.get(function_id)
        is_known = plan is not None and (cron, timezone) in [(t.cron, t.timezone) for t in plan.triggers]
        if batch.catalog().is_paused(function_id):
            return NOTHING  # the latest missed tick is sent when the function is resumed
        if is_known and at <= batch.now:
            event = event_from(tick_event(function_id, cron, at))
            return MessageFacts([IncomingEvent(event, only=function_id, cause=cause)])
        if is_known:  # this clock is behind
            self._tick_later(message, at, batch.now)
        elif message.due == at:  # tried once more, because this catalog may be older than the newest push
            self._tick_later(message, max(at, batch.now + min(MAX_DELAY_MS, self._cache_ms + 1000)), batch.now)
        return NOTHING

    def _tick_later(self, message: TickDue, due: int, now: int) -> None:
        name = (message.function_id, message.cron, message.timezone, message.at)
        body = tick_message(*name, str(message.token), due)
        send_messages(self._queue, [entry(body, delay_s(due, now))])

    def send_event(self, batch: DynamoBatch, message: SendEvent, cause: Cause) -> MessageFacts:
        """Sends one of the engine's own events to the bus."""
        event = event_from(orjson.loads(message.text), message.text.encode())
        if not self._tokens.is_valid(message.token, *send_event_name(event.id, message.text)):
            log.error("event of the engine refused, token not valid: event %r", event.id)
            return NOTHING
        own_event = Effects(events=[IncomingEvent(event, cause=cause)])
        return MessageFacts(self._dispatcher.carry_out(own_event))

    def release_events(self, batch: DynamoBatch, message: ReleaseEvents, cause: Cause) -> MessageFacts:
        """Starts runs for the events that were kept while a function was paused. Drops them if it is not live."""
        function_id = message.function_id
        is_live, entries = self._store.paused_events.page(function_id, message.after)
        events = batch.events([event_id for event_id, _ in entries])
        found = [events[event_id] for event_id, _ in entries if event_id in events] if is_live else []
        batch.expire()  # with a stale catalog, in which the function is still paused, the events would be dropped
        facts = resume(batch, function_id, found, cause)
        started = {fact.run_id for fact in facts}
        for event_id, key in entries:
            text = run_id(function_id, event_id)
            batch.forget_held(key, text if text in started else None)
        return MessageFacts(facts=facts)

    def limits_changed(self, batch: DynamoBatch, message: LimitsChanged, cause: Cause) -> MessageFacts:
        """Starts what waits for a page of the limits, as far as their newest values allow it."""
        batch.expire()
        facts, following = self._limits.look(batch, message.after, cause)
        if following is not None:
            send_messages(self._queue, [entry(limits_message(following))])
        return MessageFacts(facts=facts)

    def limit_due(self, batch: DynamoBatch, message: LimitDue, cause: Cause) -> MessageFacts:
        """Starts what waits for a throttle, if it is due. A message that is too early is sent again."""
        limit_id, key, text, due = message.limit_id, message.key, message.text, message.due
        if due > batch.now:
            later = min(due, batch.now + MAX_DELAY_MS)
            send_messages(self._queue, [entry(limit_message(limit_id, key, text, due), delay_s(later, batch.now))])
            return NOTHING
        return MessageFacts(facts=self._limits.look_at(batch, WaitedFor(limit_id, key, text), cause))

    def cancel_runs(self, batch: DynamoBatch, message: CancelRuns, cause: Cause) -> MessageFacts:
        """Cancels the runs of a deleted function in one page of the open runs, and requests the next page."""
        function_id = message.function_id
        is_valid = self._tokens.is_valid(message.token, function_id, CANCEL, 0)
        if not is_valid or not self._store.is_deleted(function_id):
            log.error("cancellation of runs refused, token not valid or function not deleted: function %r", function_id)
            return NOTHING
        page = self._store.lists.runs_of_status("running", message.before, _CANCELLED_AT_ONCE)
        entries = list(islice(page, _CANCELLED_AT_ONCE))
        records = batch.load([run for _, run in entries]).values()
        found = [record for record in records if record.plan.function_id == function_id]
        if len(entries) == _CANCELLED_AT_ONCE:
            following = cancel_message(function_id, entries[-1][0] + 1, str(message.token))
            send_messages(self._queue, [entry(following)])
        return MessageFacts(facts=[RunFact(record.run.id, CancelRequested(), cause) for record in found])

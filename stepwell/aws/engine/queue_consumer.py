"""Batches of the two queues, as Lambda hands them over: messages become events and facts, and these are processed.

One rule: a message is done when everything that follows from it is written and sent. Whatever is not done answers as a
failed item of its batch, is delivered again, and finds what was done already.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from stepwell.aws.engine.batch import DynamoBatch
from stepwell.aws.engine.message_facts import NOTHING, MessageFacts, together
from stepwell.aws.engine.outcome_messages import OutcomeMessageHandlers
from stepwell.aws.engine.session import EngineSession, cause_of, engine_session, now_ms
from stepwell.aws.functions.event_types import TypeStore
from stepwell.aws.observability import duration
from stepwell.aws.queues.event_messages import RefusedEvent, read_incoming_event
from stepwell.aws.queues.message_identity import message_identity
from stepwell.aws.queues.received_messages import parse_message
from stepwell.aws.steps.outcomes import read_body
from stepwell.core.signing import KeysUnreadable
from stepwell.platform import Cause, IncomingEvent

log = logging.getLogger("stepwell.aws")

SqsEvent = dict[str, Any]
SqsAnswer = dict[str, list[dict[str, str]]]
Read = Callable[[DynamoBatch, Any, Cause], MessageFacts]
Load = Callable[[DynamoBatch, Sequence[Any]], None]
_UNREADABLE = "message %s cannot be read; it comes again, and in the end to the dead letters"


class _Delivery(NamedTuple):
    """A message of a batch. `content`: what its body says; `error`: why that cannot be read. `sent_at`: in ms; 0 if it
    is not known."""

    message_id: str
    cause: Cause
    content: Any
    error: Exception | None
    sent_at: int

    def readable(self) -> Any:
        """The content. Raises whatever was wrong with the body."""
        if self.error is not None:
            raise self.error
        return self.content


class QueueConsumer:
    def __init__(self, session: EngineSession) -> None:
        self._session = session
        self._types = TypeStore(session.resources)
        self._handlers = OutcomeMessageHandlers(session)

    def route(self, event: SqsEvent) -> SqsAnswer:
        """Accept a batch of the queue `events`, with all that follows. Answers the messages to redeliver."""
        deliveries = [_delivery(record, orjson.loads, _as_it_is) for record in event["Records"]]
        return self._consume(deliveries, self._arrivals)

    def advance(self, event: SqsEvent) -> SqsAnswer:
        """Fold a batch of the queue `outcomes`: what came back from attempts, and timers that are due. Answers the
        messages to redeliver."""
        deliveries = [_delivery(record, read_body, parse_message) for record in event["Records"]]
        return self._consume(deliveries, self._handlers.facts, self._handlers.load)

    def _consume(
        self, deliveries: Sequence[_Delivery], read: Read, load: Load = lambda batch, contents: None
    ) -> SqsAnswer:
        batch = self._session.store.batch(now_ms())
        try:
            self._session.tokens.require()
        except KeysUnreadable as error:
            log.warning("a batch of %s messages comes again: %s", len(deliveries), error)
            return _redeliver(deliveries)
        try:
            load(batch, [delivery.content for delivery in deliveries if delivery.content is not None])
        except Exception:  # each message then reads what it needs by itself, or fails alone
            log.warning("the runs of a batch cannot be read together", exc_info=True)
        failed: set[str] = set()  # causes
        brought: list[MessageFacts] = []
        for delivery in deliveries:
            duration("MessageLag", batch.now - (delivery.sent_at or batch.now))
            try:
                brought.append(read(batch, delivery.readable(), delivery.cause))
            except Exception:
                log.exception(_UNREADABLE, delivery.cause.id)
                failed.add(delivery.cause.id)
        try:
            failed |= self._session.process(batch, together(brought))
        except Exception:
            log.exception("a batch of %s messages could not be done; all of it comes again", len(deliveries))
            return _redeliver(deliveries)
        return _redeliver([delivery for delivery in deliveries if delivery.cause.id in failed])

    def _arrivals(self, batch: DynamoBatch, envelope: Any, cause: Cause) -> MessageFacts:
        arrival = read_incoming_event(envelope, cause, batch.now)
        return NOTHING if arrival is None else MessageFacts(self._checked(batch, arrival, cause))

    def _checked(self, batch: DynamoBatch, arrival: IncomingEvent | RefusedEvent, cause: Cause) -> list[IncomingEvent]:
        """The event if it matches its type's schema, or else the events that tell of it."""
        types, event = self._types.current(), arrival.event
        refused = types.refused([(0, event)]) if types.has_any else []
        if isinstance(arrival, IncomingEvent):
            # What was accepted when this message came first goes on, whatever its type says by now.
            if not refused or (cause.redelivered and batch.events([event.id])):
                return [arrival]
        engine = self._session.engine
        return [alert for _, _, errors in refused for alert in engine.refuse(event, errors, batch.now, cause)]


def _delivery(record: Any, read_json: Callable[[bytes], Any], parse: Callable[[Any], Any]) -> _Delivery:
    """A record of Lambda's event. https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html"""
    body = content = error = None
    try:
        body = read_json(record["body"].encode())
        content = parse(body)
    except Exception as wrong:  # this message alone fails
        error = wrong
    attributes = record["attributes"]
    identity, is_again = message_identity(body, record["messageId"])
    cause = cause_of(identity, redelivered=is_again or int(attributes["ApproximateReceiveCount"]) > 1)
    return _Delivery(record["messageId"], cause, content, error, int(attributes.get("SentTimestamp", 0)))


def _as_it_is(envelope: Any) -> Any:
    return envelope


def _redeliver(deliveries: Sequence[_Delivery]) -> SqsAnswer:
    """Lambda's partial batch response: these messages come again."""
    return {"batchItemFailures": [{"itemIdentifier": delivery.message_id} for delivery in deliveries]}


@lru_cache(maxsize=1)
def queue_consumer() -> QueueConsumer:
    """The process-wide consumer."""
    return QueueConsumer(engine_session())

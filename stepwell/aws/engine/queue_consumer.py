"""Consumes batches of the two queues: turns messages into events and facts, and processes these.

A message is done when everything that follows from it is written and sent. A message that is not done is reported as a
failed item of the batch. It is delivered again, and only what is missing is done then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from stepwell.aws.engine.batch import DynamoBatch
from stepwell.aws.engine.message_facts import NOTHING, MessageFacts, combined
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
_UNREADABLE = "message %s cannot be read: it is delivered again, and finally becomes a dead letter"


class _Delivery(NamedTuple):
    """A message of a batch. `content`: the parsed body; `error`: why the body cannot be parsed. `sent_at`: in ms; 0 if
    it is not known."""

    message_id: str
    cause: Cause
    content: Any
    error: Exception | None
    sent_at: int

    def readable(self) -> Any:
        """The content. Raises the error of parsing the body."""
        if self.error is not None:
            raise self.error
        return self.content


class QueueConsumer:
    """Handles the events of Lambda for the queues `events` and `outcomes`."""

    def __init__(self, session: EngineSession) -> None:
        self._session = session
        self._types = TypeStore(session.resources)
        self._handlers = OutcomeMessageHandlers(session)

    def route(self, event: SqsEvent) -> SqsAnswer:
        """Accepts a batch of the queue `events`, starts runs and wakes waits. Returns the messages to redeliver."""
        deliveries = [_delivery(record, orjson.loads, _unchanged) for record in event["Records"]]
        return self._consume(deliveries, self._events)

    def advance(self, event: SqsEvent) -> SqsAnswer:
        """Folds a batch of the queue `outcomes` into the runs. Returns the messages to redeliver."""
        deliveries = [_delivery(record, read_body, parse_message) for record in event["Records"]]
        return self._consume(deliveries, self._handlers.facts, self._handlers.load)

    def _consume(
        self, deliveries: Sequence[_Delivery], read: Read, load: Load = lambda batch, contents: None
    ) -> SqsAnswer:
        batch = self._session.store.batch(now_ms())
        try:
            self._session.tokens.require()
        except KeysUnreadable as error:
            log.warning("batch of %s messages is delivered again: %s", len(deliveries), error)
            return _redeliver(deliveries)
        try:
            load(batch, [delivery.content for delivery in deliveries if delivery.content is not None])
        except Exception:  # each handler then loads the run of one message, and fails alone
            log.warning("runs of a batch cannot be read together", exc_info=True)
        failed: set[str] = set()  # ids of causes
        parts: list[MessageFacts] = []
        for delivery in deliveries:
            duration("MessageLag", batch.now - (delivery.sent_at or batch.now))
            try:
                parts.append(read(batch, delivery.readable(), delivery.cause))
            except Exception:
                log.exception(_UNREADABLE, delivery.cause.id)
                failed.add(delivery.cause.id)
        try:
            failed |= self._session.process(batch, combined(parts))
        except Exception:
            log.exception("batch of %s messages failed, all of it is delivered again", len(deliveries))
            return _redeliver(deliveries)
        return _redeliver([delivery for delivery in deliveries if delivery.cause.id in failed])

    def _events(self, batch: DynamoBatch, envelope: Any, cause: Cause) -> MessageFacts:
        incoming = read_incoming_event(envelope, cause, batch.now)
        return NOTHING if incoming is None else MessageFacts(self._checked(batch, incoming, cause))

    def _checked(self, batch: DynamoBatch, incoming: IncomingEvent | RefusedEvent, cause: Cause) -> list[IncomingEvent]:
        """The event, if it matches the schema; otherwise the engine's events that report the violation."""
        types, event = self._types.current(), incoming.event
        refused = types.refused([(0, event)]) if types.has_any else []
        if isinstance(incoming, IncomingEvent):
            # An event that was accepted at the first delivery stays accepted, even if the schema has changed since.
            if not refused or (cause.redelivered and batch.events([event.id])):
                return [incoming]
        engine = self._session.engine
        return [alert for _, _, errors in refused for alert in engine.refuse(event, errors, batch.now, cause)]


def _delivery(record: Any, read_json: Callable[[bytes], Any], parse: Callable[[Any], Any]) -> _Delivery:
    """The message in a record of Lambda's event. https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html"""
    body = content = error = None
    try:
        body = read_json(record["body"].encode())
        content = parse(body)
    except Exception as parse_error:  # only this message fails
        error = parse_error
    attributes = record["attributes"]
    identity, always_redelivered = message_identity(body, record["messageId"])
    cause = cause_of(identity, redelivered=always_redelivered or int(attributes["ApproximateReceiveCount"]) > 1)
    return _Delivery(record["messageId"], cause, content, error, int(attributes.get("SentTimestamp", 0)))


def _unchanged(envelope: Any) -> Any:
    return envelope


def _redeliver(deliveries: Sequence[_Delivery]) -> SqsAnswer:
    """A partial batch response for Lambda: SQS delivers these messages again."""
    return {"batchItemFailures": [{"itemIdentifier": delivery.message_id} for delivery in deliveries]}


@lru_cache(maxsize=1)
def queue_consumer() -> QueueConsumer:
    """The process-wide QueueConsumer."""
    return QueueConsumer(engine_session())

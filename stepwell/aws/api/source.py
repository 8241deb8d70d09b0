"""A source on AWS: the Lambda of `stepwell.cdk.Source`, which an event source mapping invokes with records.

Records that make no event go to the quarantine, a queue, so they never hold up the others. If events cannot be sent on,
their records are reported as failed, and the mapping delivers them again; their ids stay equal. Kafka's mapping retries
whole batches.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson

from stepwell.aws.api.delivered_records import Delivered, delivered
from stepwell.aws.queues.outbox import send_messages
from stepwell.core.events.events import Event
from stepwell.core.events.request import EventError
from stepwell.core.sources.records import Record
from stepwell.core.sources.source import Kind, NoEvent, SourceRule

log = logging.getLogger("stepwell.sources")

RULE, QUARANTINE = "STEPWELL_SOURCE", "STEPWELL_QUARANTINE"  # environment variables of the Lambda
_LONGEST = 200 * 1024  # bytes of a record in the quarantine, for messages of at most 256 KiB with base64

Made = tuple[Delivered, Event]
Refused = tuple[Delivered, NoEvent]
Accept = Callable[[Sequence[Event]], None]
Judge = Callable[[Iterable[tuple[int, Event]]], list[EventError]]


class SourceFunction:
    """Handles invocations. `accept` makes events durable, or raises; `judge` names those that their types refuse."""

    def __init__(self, rule: Mapping[str, Any], accept: Accept, judge: Judge, quarantine: str) -> None:
        self._rule = SourceRule.of(dict(rule))
        self._accept, self._judge, self._quarantine = accept, judge, quarantine

    def __call__(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to the mapping, which names the records to deliver again. Raises if it must be the whole batch."""
        items = delivered(event)
        made, refused = self._made(items)
        reasons = {error.index: error for error in self._judge(enumerate(event for _, event in made))}
        for index, error in reasons.items():
            why = f"{error.pointer} {error.message}".strip()
            refused.append((made[index][0], NoEvent(Kind.REFUSED, why)))
        made = [pair for index, pair in enumerate(made) if index not in reasons]
        failed = [
            *self._failed(lambda: self._accept([event for _, event in made]), [item for item, _ in made]),
            *self._failed(lambda: self._keep(refused), [item for item, _ in refused]),
        ]
        if any(not item.failure for item in failed):
            raise ConnectionError("the records could not be sent on; the mapping delivers the batch again")
        return {"batchItemFailures": [{"itemIdentifier": item.failure} for item in failed]}

    def _made(
        self, items: Sequence[Delivered]
    ) -> tuple[list[tuple[Delivered, Event]], list[tuple[Delivered, NoEvent]]]:
        made, refused, now = [], [], time.time_ns() // 1_000_000
        for item in items:
            try:
                event = self._rule.event_of(item.record, now)
            except NoEvent as reason:
                refused.append((item, reason))
                continue
            if event is not None:
                made.append((item, event))
        return made, refused

    def _failed(self, send: Callable[[], None], items: Sequence[Delivered]) -> Sequence[Delivered]:
        """Sends something, if there is anything. Returns the records to deliver again."""
        if not items:
            return ()
        try:
            send()
        except Exception:
            log.exception("%s records of source %s could not be sent on", len(items), self._rule.name)
            return items
        return ()

    def _keep(self, refused: Sequence[Refused]) -> None:
        log.warning("source %s: %s records made no event: %s", self._rule.name, len(refused), refused[0][1])
        messages = [{"MessageBody": _quarantined(self._rule.name, item.record, reason)} for item, reason in refused]
        send_messages(self._quarantine, messages)


def _quarantined(source: str, record: Record, reason: NoEvent) -> str:
    """The message about a record. A body that is too long is left out; the broker still has the record."""
    is_long = len(record.body or b"") > _LONGEST * 3 // 4
    kept = Record(record.id, None, {}, record.place, record.at) if is_long else record
    about = {"source": source, "kind": reason.kind, "field": reason.field, "why": reason.why, "is_cut": is_long}
    return orjson.dumps({**about, "record": orjson.Fragment(kept.stored())}).decode()


def rule_of(text: str) -> dict[str, Any]:
    """The rule in the Lambda's environment."""
    found: dict[str, Any] = json.loads(text)
    return found

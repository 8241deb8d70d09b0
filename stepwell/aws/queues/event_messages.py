"""Reads events from the queue `events`: EventBridge envelopes from ingest and from any other sender on the bus."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from stepwell.aws.queues.envelope import INGEST, ORIGIN, REFUSED
from stepwell.core.events.events import Event
from stepwell.core.events.request import BadRequest, parse_events, whole_event
from stepwell.platform import Cause, IncomingEvent

log = logging.getLogger("stepwell.aws")
_FIELDS = {"name", "data", "user", "id", "ts", "v"}


@dataclass(frozen=True, slots=True)
class RefusedEvent:
    """An event that does not match the schema. Functions are started only by the engine's events that report it."""

    event: Event


def read_incoming_event(envelope: dict[str, Any], cause: Cause, now: int) -> IncomingEvent | RefusedEvent | None:
    """The event in an EventBridge envelope; None for an event that only the engine may send. Raises BadRequest.

    For events of other senders, `detail-type` is the name, `detail` the data, and the envelope's id the id.
    """
    is_from_stepwell = envelope["source"] in (INGEST, REFUSED)  # not proven: any sender on the bus may set the source
    raw = envelope["detail"] if is_from_stepwell else _event(envelope)
    try:
        if is_from_stepwell and isinstance(raw, dict) and raw.keys() == _FIELDS:
            event = whole_event(raw)
            event.origin = next((item for item in envelope.get("resources", ()) if item.startswith(ORIGIN)), "")
        elif envelope["source"] == REFUSED:
            return None
        else:
            (event,) = parse_events(orjson.dumps(raw), now, lambda: str(envelope["id"]))
    except BadRequest as bad:
        if isinstance(raw, dict) and str(raw.get("name", "")).startswith("stepwell/"):
            log.warning("event %r from source %r dropped: %s", raw["name"], envelope["source"], bad)
            return None
        raise
    return RefusedEvent(event) if envelope["source"] == REFUSED else IncomingEvent(event, cause=cause)


def _event(envelope: dict[str, Any]) -> dict[str, Any]:
    sent_at = datetime.fromisoformat(envelope["time"])
    return {
        "name": envelope["detail-type"],
        "data": envelope["detail"],
        "id": envelope["id"],
        "ts": round(sent_at.timestamp() * 1000),
    }

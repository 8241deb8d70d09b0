"""Events on the queue `events`: EventBridge's envelopes, of our own ingest and of anybody who may put on the bus."""

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
    """An event that was not accepted: functions are told of it."""

    event: Event


def read_arrival(envelope: dict[str, Any], cause: Cause, now: int) -> IncomingEvent | RefusedEvent | None:
    """The event in an envelope of EventBridge; None for one that nobody but the engine may send. Raises BadRequest.

    Of others' events `detail-type` is the name, `detail` the data, and the entry's id the id.
    """
    is_ours = envelope["source"] in (INGEST, REFUSED)  # or says so: whoever may put on the bus can use any source
    raw = envelope["detail"] if is_ours else _event(envelope)
    try:
        if is_ours and isinstance(raw, dict) and raw.keys() == _FIELDS:
            event = whole_event(raw)
            event.origin = next((item for item in envelope.get("resources", ()) if item.startswith(ORIGIN)), "")
        elif envelope["source"] == REFUSED:
            return None
        else:
            (event,) = parse_events(orjson.dumps(raw), now, lambda: str(envelope["id"]))
    except BadRequest as bad:
        if isinstance(raw, dict) and str(raw.get("name", "")).startswith("stepwell/"):
            log.warning("an event %r from source %r is dropped: %s", raw["name"], envelope["source"], bad)
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

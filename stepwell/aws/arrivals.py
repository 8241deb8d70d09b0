"""Events on the queue `events`: EventBridge's envelopes, of our own ingest and of anybody who may put on the bus."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from stepwell.aws.envelope import INGEST, REFUSED
from stepwell.core.events import BadRequest, Event, event_from, parse_events
from stepwell.engine import Arrival
from stepwell.platform import Cause

log = logging.getLogger("stepwell.aws")
_FIELDS = {"name", "data", "user", "id", "ts", "v"}


@dataclass(frozen=True, slots=True)
class Refused:
    """An event that was not accepted: functions are told of it."""

    event: Event


def read_arrival(body: str, cause: Cause, now: int) -> Arrival | Refused | None:
    """The event of a message; None for one that nobody but the engine may send. Raises BadRequest.

    Of others' events `detail-type` is the name, `detail` the data, and the entry's id the id.
    """
    envelope = orjson.loads(body)
    if envelope["source"] == REFUSED:
        return Refused(event_from(envelope["detail"])) if _is_whole(envelope["detail"]) else None
    if envelope["source"] == INGEST and _is_whole(envelope["detail"]):
        return Arrival(event_from(envelope["detail"]), cause=cause)
    raw = envelope["detail"] if envelope["source"] == INGEST else _event(envelope)
    try:
        (event,) = parse_events(orjson.dumps(raw), now, lambda: str(envelope["id"]))
    except BadRequest as bad:
        if str(raw.get("name", "")).startswith("stepwell/"):
            log.warning("an event %r from source %r is dropped: %s", raw["name"], envelope["source"], bad)
            return None
        raise
    return Arrival(event, cause=cause)


def _is_whole(detail: dict[str, Any]) -> bool:
    """As ingest checked it and filled it in: what it added does not count towards an event's size. A name of the
    engine's own is looked at again, since whoever may put on the bus can use any source."""
    return detail.keys() == _FIELDS and not detail["name"].startswith("stepwell/")


def _event(envelope: dict[str, Any]) -> dict[str, Any]:
    sent_at = datetime.fromisoformat(envelope["time"])
    return {
        "name": envelope["detail-type"],
        "data": envelope["detail"],
        "id": envelope["id"],
        "ts": round(sent_at.timestamp() * 1000),
    }

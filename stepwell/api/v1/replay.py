"""`POST /v1/functions/{id}/replay`: the request and the response.

A request has at most MAX_EVENTS events. It can be repeated: an event that the replay has already started does not start
again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stepwell.api.http.body import check_integers, read_object, wrong
from stepwell.api.views.models import ReplayedView, ReplayView
from stepwell.core.events.events import Event
from stepwell.core.events.request import BadRequest, events_accepted_before
from stepwell.core.json_input import MAX_LEVELS
from stepwell.platform import Replayed

MAX_EVENTS = 100
_MORE_LEVELS = 10  # nesting of the events in the body, and of what the server has added to an event
_ID = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"

REPLAY: dict[str, Any] = {
    "type": "object",
    "required": ["replay", "events"],
    "additionalProperties": False,
    "properties": {
        "replay": {
            "type": "string",
            "pattern": f"^{_ID}$",
            "description": "The id of the replay; runs are marked with it.",
        },
        "version": {
            "type": ["integer", "null"],
            "minimum": 1,
            "maximum": 2**31 - 1,
            "description": "The version to run; default: the live one.",
        },
        "events": {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_EVENTS,
            "description": "Ids of stored events, or whole events of another server.",
            "items": {
                "type": "object",
                "minProperties": 1,
                "maxProperties": 1,
                "additionalProperties": False,
                "properties": {
                    "id": {"type": "string", "minLength": 1, "maxLength": 256},
                    "event": {"type": "object"},
                },
            },
        },
    },
}


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    replay: str
    version: int | None
    events: Sequence[str | Event]  # ids of stored events, or whole events


def read_replay(body: bytes) -> ReplayRequest:
    """Parses a request. Raises Problem 400 with the place of every error, or 413 for an event that is too large."""
    raw = read_object(body, REPLAY, MAX_LEVELS + _MORE_LEVELS)
    check_integers(body)
    places = [i for i, item in enumerate(raw["events"]) if "event" in item]
    try:
        whole = events_accepted_before([raw["events"][i]["event"] for i in places], time.time_ns() // 1_000_000)
    except BadRequest as bad:
        raise wrong(
            *((f"/events/{places[e.index]}/event{e.pointer}", e.message) for e in bad.errors), status=bad.status
        ) from None
    rest = iter(whole)
    events = [next(rest) if "event" in event else event["id"] for event in raw["events"]]
    return ReplayRequest(raw["replay"], raw.get("version"), events)


def replay_view(replay: str, function_id: str, version: int, done: Sequence[Replayed]) -> ReplayView:
    return {
        "replay": replay,
        "function_id": function_id,
        "function_version": version,
        "events": [_replayed_view(replayed) for replayed in done],
    }


def _replayed_view(replayed: Replayed) -> ReplayedView:
    if replayed.problem is not None:
        return {"event_id": replayed.event_id, "status": "not started", "run_id": None, "problem": replayed.problem}
    if replayed.run_id is None:
        return {"event_id": replayed.event_id, "status": "unknown event", "run_id": None}
    return {
        "event_id": replayed.event_id,
        "status": "started" if replayed.is_new else "already",
        "run_id": replayed.run_id,
    }

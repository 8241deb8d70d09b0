"""`POST /v1/functions/{id}/replay`: what may be asked, and what is answered.

One rule: a request is bounded, and may be repeated: what its replay has started already does not start again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from stepwell.api.models import ReplayedView, ReplayView
from stepwell.api.problem import Problem
from stepwell.core.events import BadRequest, Event, kept_events, large_integers
from stepwell.platform import Replayed

MAX_EVENTS = 100
_ID = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"

REPLAY: dict[str, Any] = {
    "type": "object",
    "required": ["replay", "events"],
    "additionalProperties": False,
    "properties": {
        "replay": {"type": "string", "pattern": f"^{_ID}$", "description": "marks the runs; repeated, nothing doubles"},
        "version": {"type": ["integer", "null"], "minimum": 1, "description": "of the function; default: the live one"},
        "events": {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_EVENTS,
            "description": "stored events by id, or whole ones of another server",
            "items": {
                "oneOf": [
                    {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}},
                    {"type": "object", "required": ["event"], "properties": {"event": {"type": "object"}}},
                ]
            },
        },
    },
}


@dataclass(frozen=True, slots=True)
class Asked:
    replay: str
    version: int | None
    events: Sequence[str | Event]  # ids of stored ones, and whole ones


def read_replay(body: bytes) -> Asked:
    """Raises Problem 400 with the place of every error, or 413 for an event that is too large."""
    try:
        raw = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem(400, f"the body is not JSON: {error}") from None
    problems = [*_problems(raw), *((error.pointer, error.message) for error in large_integers(body))]
    status, whole = 400, []
    if not problems:
        places = [i for i, its in enumerate(raw["events"]) if "event" in its]
        try:
            whole = kept_events([raw["events"][i]["event"] for i in places], time.time_ns() // 1_000_000)
        except BadRequest as bad:
            status = bad.status
            problems = [(f"/events/{places[e.index]}/event{e.pointer}", e.message) for e in bad.errors]
    if problems:
        errors = [{"pointer": pointer, "message": message} for pointer, message in problems]
        raise Problem(status, f"{problems[0][0]}: {problems[0][1]}".removeprefix(": "), errors=errors)
    rest = iter(whole)
    events = [next(rest) if "event" in its else its["id"] for its in raw["events"]]
    return Asked(raw["replay"], raw.get("version"), events)


def _problems(raw: Any) -> list[tuple[str, str]]:
    """JSON pointers and messages."""
    if not isinstance(raw, dict):
        return [("", 'the body is a JSON object such as {"replay": "r1", "events": [{"id": "..."}]}')]
    found = [
        (f"/{name}", "this is unknown; known are replay, version and events")
        for name in raw.keys() - REPLAY["properties"]
    ]
    replay, version, events = raw.get("replay"), raw.get("version"), raw.get("events")
    if not isinstance(replay, str) or not re.fullmatch(_ID, replay):
        found.append(("/replay", "a replay's id has 1 to 64 letters, digits, dots, dashes and underscores"))
    if version is not None and (type(version) is not int or not 1 <= version < 2**31):
        found.append(("/version", "a version is a number from 1 on"))
    if not isinstance(events, list) or not 1 <= len(events) <= MAX_EVENTS:
        return [*found, ("/events", f"events is a list of 1 to {MAX_EVENTS} entries")]
    for i, its in enumerate(events):
        if not isinstance(its, dict) or its.keys() not in ({"id"}, {"event"}):
            found.append((f"/events/{i}", 'an entry is {"id": "..."} of a stored event, or {"event": {...}}'))
        elif "id" in its and (not isinstance(its["id"], str) or not 1 <= len(its["id"]) <= 256):
            found.append((f"/events/{i}/id", "an id is a text of 1 to 256 characters"))
    return found


def replay_view(replay: str, function_id: str, version: int, done: Sequence[Replayed]) -> ReplayView:
    return {
        "replay": replay,
        "function_id": function_id,
        "function_version": version,
        "events": [_replayed_view(its) for its in done],
    }


def _replayed_view(its: Replayed) -> ReplayedView:
    if its.run_id is None:
        return {"event_id": its.event_id, "status": "unknown event", "run_id": None}
    return {"event_id": its.event_id, "status": "started" if its.is_new else "already", "run_id": its.run_id}

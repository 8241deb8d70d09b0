"""`POST /e`: from the bytes of a request to events, and to the bytes of the answer. The hot path: plain functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from stepwell.api.access import Keys, KeyScope, bearer, require
from stepwell.api.encoding import decoded_body
from stepwell.api.event_ids import new_event_id
from stepwell.api.problem import Problem
from stepwell.api.seeds import HEADER, seeded_ids
from stepwell.core.events import MAX_BODY_BYTES, BadRequest, Event, parse_events
from stepwell.core.json_input import MAX_LEVELS

WEBHOOKS = "/webhooks/"  # paths below it are answered by `api.webhooks`
MADE_LEVELS = MAX_LEVELS + 4  # of an event that is made here of what somebody sent, which may have MAX_LEVELS


def require_sender(keys: Keys, path_key: str | None, authorization: str | None) -> None:
    """Nothing of the body is read, stored or parsed for whoever has no key. `path_key` is that of `/e/{key}`. Raises
    Problem 401."""
    require(keys, path_key or bearer(authorization), KeyScope.SEND)


def read_events(headers: Mapping[str, str], body: bytes, now: int) -> list[Event]:
    """The events of a request, all or none; its key was checked before. Names of headers are in small letters.
    Whoever accepts the events asks their types, also of the others of a request that is refused. Raises BadRequest, and
    Problem 400, 413 or 415 for a body that cannot be decompressed."""
    body = decoded_body(headers, body, MAX_BODY_BYTES)
    ids = seeded_ids(headers[HEADER]) if HEADER in headers else None
    levels = MAX_LEVELS
    if _is_cloudevent(headers) and len(body) <= MAX_BODY_BYTES:
        from stepwell.api.cloudevents import translated  # few senders need it

        body, levels = translated(headers, body), MADE_LEVELS
    events = parse_events(body, now, new_event_id if ids is None else ids.__next__, levels=levels)
    if ids is not None:
        for event in events:
            event.fresh = False  # the request may have come before
    return events


def _is_cloudevent(headers: Mapping[str, str]) -> bool:
    return "ce-specversion" in headers or headers.get("content-type", "").lower().startswith("application/cloudevents")


def refusal(bad: BadRequest) -> Problem:
    """What the sender is answered: every error with its index and JSON pointer."""
    errors = [{"index": e.index, "pointer": e.pointer, "message": e.message} for e in bad.errors]
    first = bad.errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    place = f"event {first.index}" + (f", {first.pointer}" if first.pointer else "")
    return Problem(bad.status, f"{place}: {first.message}{more}", errors=errors)


def accepted(events: Sequence[Event]) -> bytes:
    """The answer once the events are durable."""
    return orjson.dumps({"ids": [event.id for event in events], "status": 200})

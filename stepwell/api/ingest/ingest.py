"""`POST /e`: from the bytes of a request to events, and to the bytes of the answer. The hot path: plain functions."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence

import orjson

from stepwell.api.access import Keys, KeyScope, bearer, require
from stepwell.api.http.encoding import decoded_body
from stepwell.api.http.problem import Problem
from stepwell.api.ingest.event_ids import new_event_id
from stepwell.api.ingest.seeds import HEADER, seeded_ids
from stepwell.core.events.events import Event
from stepwell.core.events.request import MAX_BODY_BYTES, BadRequest, events_in_pieces, parse_events
from stepwell.core.json_input import MAX_LEVELS, may_have_large_integers

WEBHOOKS = "/webhooks/"  # paths below it are answered by `api.webhooks.webhooks`
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
    ids, levels = _seeded_ids(headers), MAX_LEVELS
    if _is_cloudevent(headers) and len(body) <= MAX_BODY_BYTES:
        from stepwell.api.ingest.cloudevents import translated  # few senders need it

        body, levels = translated(headers, body), MADE_LEVELS
    events = parse_events(body, now, new_event_id if ids is None else ids.__next__, levels=levels)
    return events if ids is None else _maybe_known(events)


def in_pieces(headers: Mapping[str, str], body: bytes, now: int) -> Generator[None, None, list[Event]] | None:
    """`read_events` with pauses, for large bodies; None for those that must be decoded, translated or read closely
    first."""
    if "content-encoding" in headers or _is_cloudevent(headers) or may_have_large_integers(body):
        return None
    return _in_pieces(headers, body, now)


def _in_pieces(headers: Mapping[str, str], body: bytes, now: int) -> Generator[None, None, list[Event]]:
    ids = _seeded_ids(headers)
    events = yield from events_in_pieces(body, now, new_event_id if ids is None else ids.__next__)
    return events if ids is None else _maybe_known(events)


def _seeded_ids(headers: Mapping[str, str]) -> Iterator[str] | None:
    return seeded_ids(headers[HEADER]) if HEADER in headers else None


def _maybe_known(events: list[Event]) -> list[Event]:
    """Events whose ids were not made here: the request may have come before."""
    for event in events:
        event.fresh = False
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

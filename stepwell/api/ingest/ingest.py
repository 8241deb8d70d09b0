"""`POST /e`: parses requests to events, and encodes the answers. Plain functions, because this path must be fast."""

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

WEBHOOKS = "/webhooks/"  # paths below it are handled by `api.webhooks.webhooks`
MADE_LEVELS = MAX_LEVELS + 4  # nesting of an event that wraps a body with MAX_LEVELS


def require_sender(keys: Keys, path_key: str | None, authorization: str | None) -> None:
    """Checks the key of a sender; call it before the body is read. `path_key` is the key of `/e/{key}`.

    Raises Problem 401.
    """
    require(keys, path_key or bearer(authorization), KeyScope.SEND)


def read_events(headers: Mapping[str, str], body: bytes, now: int) -> list[Event]:
    """Parses the events of a request, all or none. Header names must be in lower case.

    The caller has checked the key, and checks the events against their types afterwards. Raises BadRequest, and Problem
    400, 413 or 415 for a body that cannot be decompressed.
    """
    body = decoded_body(headers, body, MAX_BODY_BYTES)
    ids, levels = _seeded_ids(headers), MAX_LEVELS
    if _is_cloudevent(headers) and len(body) <= MAX_BODY_BYTES:
        from stepwell.core.events.cloudevents import translated  # imported late: few senders use CloudEvents

        body, levels = translated(headers, body), MADE_LEVELS
    events = parse_events(body, now, new_event_id if ids is None else ids.__next__, levels=levels)
    return events if ids is None else _possible_duplicates(events)


def in_pieces(headers: Mapping[str, str], body: bytes, now: int) -> Generator[None, None, list[Event]] | None:
    """A generator that does the same as `read_events` in slices, for large bodies.

    None if the body must be decompressed, translated or searched for large integers first.
    """
    if "content-encoding" in headers or _is_cloudevent(headers) or may_have_large_integers(body):
        return None
    return _in_pieces(headers, body, now)


def _in_pieces(headers: Mapping[str, str], body: bytes, now: int) -> Generator[None, None, list[Event]]:
    ids = _seeded_ids(headers)
    events = yield from events_in_pieces(body, now, new_event_id if ids is None else ids.__next__)
    return events if ids is None else _possible_duplicates(events)


def _seeded_ids(headers: Mapping[str, str]) -> Iterator[str] | None:
    return seeded_ids(headers[HEADER]) if HEADER in headers else None


def _possible_duplicates(events: list[Event]) -> list[Event]:
    """Marks events whose ids come from the sender: the same request may have been sent before."""
    for event in events:
        event.fresh = False
    return events


def _is_cloudevent(headers: Mapping[str, str]) -> bool:
    return "ce-specversion" in headers or headers.get("content-type", "").lower().startswith("application/cloudevents")


def refusal(bad: BadRequest) -> Problem:
    """The error response to a sender: every error with the index of the event and a JSON pointer."""
    errors = [{"index": e.index, "pointer": e.pointer, "message": e.message} for e in bad.errors]
    first = bad.errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    place = f"event {first.index}" + (f", {first.pointer}" if first.pointer else "")
    return Problem(bad.status, f"{place}: {first.message}{more}", errors=errors)


def accepted(events: Sequence[Event]) -> bytes:
    """The response body when the events are durable."""
    return orjson.dumps({"ids": [event.id for event in events], "status": 200})

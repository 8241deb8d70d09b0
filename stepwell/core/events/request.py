"""Parses the body of `POST /e`, one event or an array of events. This is the hot path of the API."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from stepwell.core.events.engine_ids import EngineId
from stepwell.core.events.envelope import (
    FIELDS,
    MAX_EVENT_BYTES,
    TOO_DEEP,
    InvalidEnvelope,
    envelope_problems,
    event_body,
    new_event,
)
from stepwell.core.events.events import Event, event_from
from stepwell.core.json_input import (
    MAX_LEVELS,
    BadJson,
    TooDeep,
    TooMany,
    is_deeper,
    large_integers,
    parse_json,
)

MAX_EVENTS = 1000  # in one request
MAX_BODY_BYTES = 4 * 1024 * 1024
_FILLED_IN = 400  # bytes; the maximum size of the fields that are filled in with defaults
_AT_ONCE = 20  # events of a large body that are read between two yields
_MAX_ERRORS = 10_000  # so that a response is not many times larger than the request
_NO_ENGINE_IDS: Collection[EngineId] = ()


@dataclass(frozen=True, slots=True)
class EventError:
    """An error in one event. `index`: the position of the event in the request. `pointer`: the place in the event, as
    a JSON pointer (RFC 6901)."""

    index: int
    pointer: str
    message: str


class BadRequest(Exception):
    """The whole request is refused.

    `status`: 400 or 413. `errors`: the errors of all events. `others`: the events without errors, with their positions
    in the request.
    """

    def __init__(self, status: int, errors: Iterable[EventError], others: Sequence[tuple[int, Event]] = ()) -> None:
        self.status, self.others = status, others
        self.errors = sorted(errors, key=lambda error: error.index)[:_MAX_ERRORS]
        super().__init__(self.errors[0].message)

    def with_more(self, errors: Iterable[EventError]) -> BadRequest:
        """A copy of the exception with more errors."""
        return BadRequest(self.status, [*self.errors, *errors])


def parse_events(
    body: bytes,
    now_ms: int,
    new_id: Callable[[], str],
    *,
    engine_ids: Collection[EngineId] = _NO_ENGINE_IDS,
    levels: int = MAX_LEVELS,
) -> list[Event]:
    """The events in the body of a request, which is one JSON object or an array of objects. Raises BadRequest.

    `engine_ids`: the reserved prefixes that ids may have. `levels`: how deeply an event may be nested.
    """
    items, large = _items(body, levels)
    return _events(items, now_ms, new_id, large, engine_ids)


def events_in_pieces(
    body: bytes, now_ms: int, new_id: Callable[[], str], *, levels: int = MAX_LEVELS
) -> Generator[None, None, list[Event]]:
    """Does the same as `parse_events` in pieces, for large bodies. The caller may do other work at each yield."""
    items, large = _items(body, levels)
    yield
    reader = _EventReader(now_ms, new_id)
    for start in range(0, len(items), _AT_ONCE):
        reader.take(items[start : start + _AT_ONCE])
        yield
    return reader.events(large)


def _items(body: bytes, levels: int) -> tuple[Sequence[Any], Sequence[EventError]]:
    """The parsed events of a request, and an error for each integer that is too large. Raises BadRequest."""
    if len(body) > MAX_BODY_BYTES:
        message = f"the request has more than {MAX_BODY_BYTES:,} bytes; send several requests"
        raise BadRequest(413, [EventError(0, "", message)])
    is_array = body.lstrip()[:1] == b"["
    try:
        raw = parse_json(body, levels + is_array)
    except BadJson as error:
        items = error.value if isinstance(error, TooDeep) and isinstance(error.value, list) else ()
        deep = [EventError(i, "", TOO_DEEP) for i, item in enumerate(items) if is_deeper(item, levels)]
        if isinstance(error, TooMany):
            message = f"a request may have at most {MAX_EVENTS:,} events and {MAX_BODY_BYTES:,} bytes; {error}"
            raise BadRequest(413, [EventError(0, "", message)]) from None
        raise BadRequest(400, deep or [EventError(0, "", f"the body is not JSON: {error}")]) from None
    items = raw if isinstance(raw, list) else [raw]
    check_count(items)
    return items, large_integers_of_events(body, raw)


def check_count(items: Sequence[Any]) -> None:
    """Raises BadRequest if there is no event, or if there are more than a request may have."""
    if not items:
        raise BadRequest(400, [EventError(0, "", "the array is empty; send at least one event")])
    if len(items) > MAX_EVENTS:
        message = f"the request has {len(items):,} events, more than {MAX_EVENTS:,}; send several requests"
        raise BadRequest(413, [EventError(0, "", message)])


def events_accepted_before(items: Sequence[Any], now_ms: int) -> list[Event]:
    """The events from a server that has accepted them before. Names and ids may be reserved ones.

    Raises BadRequest, also for an event without an id.
    """

    def missing_id() -> str:
        raise InvalidEnvelope([("/id", "id is missing; an event that was accepted before must have one")])

    return _events(items, now_ms, missing_id, [], tuple(EngineId), accepted_before=True)


def _events(
    items: Sequence[Any],
    now_ms: int,
    new_id: Callable[[], str],
    large: Sequence[EventError],
    engine_ids: Collection[EngineId],
    *,
    accepted_before: bool = False,
) -> list[Event]:
    reader = _EventReader(now_ms, new_id, engine_ids, accepted_before)
    reader.take(items)
    return reader.events(large)


class _EventReader:
    """Reads the events of a request, and collects the errors in them."""

    def __init__(
        self,
        now_ms: int,
        new_id: Callable[[], str],
        engine_ids: Collection[EngineId] = _NO_ENGINE_IDS,
        accepted_before: bool = False,
    ) -> None:
        self._options = (now_ms, new_id, engine_ids, accepted_before)
        self._found: list[tuple[int, Event]] = []
        self._errors: list[EventError] = []
        self._status, self._next = 400, 0

    def take(self, items: Sequence[Any]) -> None:
        """Reads the next events. After too many errors, no more events are read."""
        for index, item in enumerate(items, self._next):
            if len(self._errors) >= _MAX_ERRORS:
                break
            try:
                self._found.append((index, new_event(item, *self._options)))
            except InvalidEnvelope as refused:
                self._errors += [EventError(index, pointer, message) for pointer, message in refused.problems]
                self._status = max(self._status, refused.status)
        self._next += len(items)

    def events(self, large: Sequence[EventError]) -> list[Event]:
        """All events that were read. Raises BadRequest if there are errors, in them or in `large`."""
        if errors := [*self._errors, *large]:
            raise BadRequest(self._status, errors, self._found)
        return [event for _, event in self._found]


def whole_event(fields: dict[str, Any]) -> Event:
    """An event with all fields that another component forwards, checked again. Raises BadRequest.

    Fields that were filled in with defaults do not count towards the maximum size.
    """
    problems = envelope_problems(fields, (EngineId.WEBHOOK, EngineId.SOURCE, EngineId.EMIT))
    problems += [(f"/{name}", f"{name} is missing") for name in FIELDS if name != "v" and fields.get(name) is None]
    body, status = b"", 400
    try:
        body = b"" if problems else event_body({name: fields.get(name) for name in FIELDS})
    except InvalidEnvelope as refused:
        problems = refused.problems
    if len(body) > MAX_EVENT_BYTES + _FILLED_IN:
        problems, status = [("", f"the event has {len(body):,} bytes, more than {MAX_EVENT_BYTES:,}")], 413
    if problems:
        raise BadRequest(status, [EventError(0, pointer, message) for pointer, message in problems])
    return event_from(fields, body)


def large_integers_of_events(body: bytes, raw: Any) -> list[EventError]:
    """An error for each integer in a body that is too large for 64 bits: parsing has made it a float."""
    message = "the number does not fit into 64 bits; send it as a text in quotes"
    if not (pointers := large_integers(body)):
        return []
    if not isinstance(raw, list):
        return [EventError(0, pointer, message) for pointer in pointers]
    found = (pointer[1:].partition("/") for pointer in pointers)
    return [EventError(int(index), f"/{rest}" if slash else "", message) for index, slash, rest in found]

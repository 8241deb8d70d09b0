"""The events of a request: one JSON object, or an array of them. The hot path of `POST /e`."""

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

MAX_EVENTS = 1000  # of a request
MAX_BODY_BYTES = 4 * 1024 * 1024
_FILLED_IN = 400  # bytes: names and values of the fields that a sender may leave out
_AT_ONCE = 20  # events of a large body between two pauses
_MAX_ERRORS = 10_000  # an answer must not be many times larger than what it answers
_NO_ENGINE_IDS: Collection[EngineId] = ()


@dataclass(frozen=True, slots=True)
class EventError:
    """An error in one event. `index` is the position of the event in the request, `pointer` (RFC 6901) the place in
    the event."""

    index: int
    pointer: str
    message: str


class BadRequest(Exception):
    """The request is refused as a whole. `status` is 400 or 413, `errors` lists the errors of all events, `others` the
    events without errors, with their positions in the request."""

    def __init__(self, status: int, errors: Iterable[EventError], others: Sequence[tuple[int, Event]] = ()) -> None:
        self.status, self.others = status, others
        self.errors = sorted(errors, key=lambda error: error.index)[:_MAX_ERRORS]
        super().__init__(self.errors[0].message)

    def with_more(self, errors: Iterable[EventError]) -> BadRequest:
        """The same refusal with further errors."""
        return BadRequest(self.status, [*self.errors, *errors])


def parse_events(
    body: bytes,
    now_ms: int,
    new_id: Callable[[], str],
    *,
    engine_ids: Collection[EngineId] = _NO_ENGINE_IDS,
    levels: int = MAX_LEVELS,
) -> list[Event]:
    """The events of a request: one JSON object, or an array of them. `engine_ids`: how ids may begin that senders may
    not use. `levels`: how deep an event may nest. Raises BadRequest."""
    items, large = _items(body, levels)
    return _events(items, now_ms, new_id, large, engine_ids)


def events_in_pieces(
    body: bytes, now_ms: int, new_id: Callable[[], str], *, levels: int = MAX_LEVELS
) -> Generator[None, None, list[Event]]:
    """`parse_events` in pieces, for large bodies: the caller may do other work at each yield."""
    items, large = _items(body, levels)
    yield
    reader = _EventReader(now_ms, new_id)
    for start in range(0, len(items), _AT_ONCE):
        reader.take(items[start : start + _AT_ONCE])
        yield
    return reader.events(large)


def _items(body: bytes, levels: int) -> tuple[Sequence[Any], Sequence[EventError]]:
    """The events of a request as they were sent, and the integers in it that are too large. Raises BadRequest."""
    if len(body) > MAX_BODY_BYTES:
        raise BadRequest(413, [EventError(0, "", f"a request may have {MAX_BODY_BYTES:,} bytes; send several")])
    is_array = body.lstrip()[:1] == b"["
    try:
        raw = parse_json(body, levels + is_array)
    except BadJson as error:
        items = error.value if isinstance(error, TooDeep) and isinstance(error.value, list) else ()
        deep = [EventError(i, "", TOO_DEEP) for i, item in enumerate(items) if is_deeper(item, levels)]
        if isinstance(error, TooMany):
            message = f"a request may have {MAX_EVENTS:,} events and {MAX_BODY_BYTES:,} bytes; {error}"
            raise BadRequest(413, [EventError(0, "", message)]) from None
        raise BadRequest(400, deep or [EventError(0, "", f"the body is not JSON: {error}")]) from None
    items = raw if isinstance(raw, list) else [raw]
    check_count(items)
    return items, large_integers_of_events(body, raw)


def check_count(items: Sequence[Any]) -> None:
    """Raises BadRequest for no event, and for more than a request may have."""
    if not items:
        raise BadRequest(400, [EventError(0, "", "the array holds no event")])
    if len(items) > MAX_EVENTS:
        message = f"a request may have {MAX_EVENTS:,} events, and this one has {len(items):,}; send several"
        raise BadRequest(413, [EventError(0, "", message)])


def events_accepted_before(items: Sequence[Any], now_ms: int) -> list[Event]:
    """Events that a server has accepted before. Each has an id; names and ids may be the engine's own. Raises
    BadRequest."""

    def needs_id() -> str:
        raise InvalidEnvelope([("/id", "an event that was accepted before has an id")])

    return _events(items, now_ms, needs_id, [], tuple(EngineId), accepted_before=True)


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
    """The events of a request, as far as they have been read, and what is wrong with the others."""

    def __init__(
        self,
        now_ms: int,
        new_id: Callable[[], str],
        engine_ids: Collection[EngineId] = _NO_ENGINE_IDS,
        accepted_before: bool = False,
    ) -> None:
        self._how = (now_ms, new_id, engine_ids, accepted_before)
        self._found: list[tuple[int, Event]] = []
        self._errors: list[EventError] = []
        self._status, self._next = 400, 0

    def take(self, items: Sequence[Any]) -> None:
        """Read the next events. Events after too many errors are not read."""
        for index, item in enumerate(items, self._next):
            if len(self._errors) >= _MAX_ERRORS:
                break
            try:
                self._found.append((index, new_event(item, *self._how)))
            except InvalidEnvelope as refused:
                self._errors += [EventError(index, pointer, message) for pointer, message in refused.problems]
                self._status = max(self._status, refused.status)
        self._next += len(items)

    def events(self, large: Sequence[EventError]) -> list[Event]:
        """All events that were read. Raises BadRequest if one of them, or `large`, has an error."""
        if errors := [*self._errors, *large]:
            raise BadRequest(self._status, errors, self._found)
        return [event for _, event in self._found]


def whole_event(fields: dict[str, Any]) -> Event:
    """An event with all fields, as another sender forwards it, checked again. Fields that were filled in do not count
    towards its size. Raises BadRequest."""
    problems = envelope_problems(fields, (EngineId.WEBHOOK,))
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
    """The integers of a JSON text that would silently become floats; `index` as in an array of events."""
    message = "the number does not fit into 64 bits; send it as a text"
    if not (pointers := large_integers(body)):
        return []
    if not isinstance(raw, list):
        return [EventError(0, pointer, message) for pointer in pointers]
    found = (pointer[1:].partition("/") for pointer in pointers)
    return [EventError(int(index), f"/{rest}" if slash else "", message) for index, slash, rest in found]

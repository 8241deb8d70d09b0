"""The envelope of an event: what a sender may write, and what is kept. The hot path of `POST /e`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import orjson

from stepwell.core.events.engine_ids import EngineId, engine_prefix
from stepwell.core.json_input import (
    MAX_LEVELS,
    BadJson,
    TooDeep,
    TooMany,
    escaped,
    is_deeper,
    large_integers,
    parse_json,
)

MAX_EVENTS = 1000  # of a request
MAX_EVENT_BYTES = 256 * 1024
MAX_BODY_BYTES = 4 * 1024 * 1024
_FILLED_IN = 400  # bytes: names and values of the fields that a sender may leave out
_FIELDS = ("name", "data", "user", "id", "ts", "v")
_KNOWN = frozenset(_FIELDS)
_MAX_TS = 253_402_300_799_999  # the end of the year 9999
_AT_ONCE = 20  # events of a large body between two pauses
_MAX_ERRORS = 10_000  # an answer must not be many times larger than what it answers
_MOST_UNKNOWN = 20  # unknown fields of one event that are named
_LONGEST_MISSPELT = 10  # characters: what is longer is no misspelt field
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_TOO_DEEP = f"the event is nested too deeply; it may have {MAX_LEVELS} levels"
_NO_ENGINE_IDS: Collection[EngineId] = ()


@dataclass(frozen=True, slots=True)
class Invalid:
    """One thing in an event that is not as its type says: the place (RFC 6901), and what is wrong there."""

    pointer: str
    message: str


@dataclass(slots=True)
class Event:
    """An accepted event. `body` is its JSON text, `seq` the position it was accepted at (0: not yet); `fresh` if its
    id was made here, so that it cannot be a duplicate; `invalid`: what its type has against it, until it is stored;
    `erased` if its data and user were, with all of its user; `origin`: of a fresh event that went through queues, what
    tells it from others, should they have its id."""

    id: str
    name: str
    data: dict[str, Any]
    user: dict[str, Any]
    ts: int
    v: str | None
    body: bytes
    seq: int = 0
    fresh: bool = False
    invalid: Sequence[Invalid] = ()
    erased: bool = False
    origin: str = ""

    def as_json(self) -> dict[str, Any]:
        """The event as expressions see it."""
        return {"name": self.name, "data": self.data, "user": self.user, "id": self.id, "ts": self.ts, "v": self.v}

    def rename(self, event_id: str) -> None:
        """Give it another id than the one that was made for it, before it is stored."""
        self.id = event_id
        self.body = orjson.dumps(self.as_json())

    @classmethod
    def stored(cls, seq: int, body: bytes) -> Event:
        """An event as it was kept."""
        return event_from(orjson.loads(body), body, seq)


@dataclass(frozen=True, slots=True)
class EventError:
    """What is wrong with one event: `index` is its place in the request, `pointer` (RFC 6901) the place in it."""

    index: int
    pointer: str
    message: str


class BadRequest(Exception):
    """Nothing of the request is accepted: every error of every event. `status` is 400 or 413. `others`: the events
    that nothing was found against, by their places in the request."""

    def __init__(self, status: int, errors: Iterable[EventError], others: Sequence[tuple[int, Event]] = ()) -> None:
        self.status, self.others = status, others
        self.errors = sorted(errors, key=lambda error: error.index)[:_MAX_ERRORS]
        super().__init__(self.errors[0].message)

    def with_more(self, errors: Iterable[EventError]) -> BadRequest:
        """The same refusal, with more that was found."""
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
    """`parse_events` with pauses, for large bodies: at each yield others may have their turn."""
    items, large = _items(body, levels)
    yield
    reading = _Reading(now_ms, new_id)
    for start in range(0, len(items), _AT_ONCE):
        reading.take(items[start : start + _AT_ONCE])
        yield
    return reading.events(large)


def _items(body: bytes, levels: int) -> tuple[Sequence[Any], Sequence[EventError]]:
    """The events of a request as they were sent, and the integers in it that are too large. Raises BadRequest."""
    if len(body) > MAX_BODY_BYTES:
        raise BadRequest(413, [EventError(0, "", f"a request may have {MAX_BODY_BYTES:,} bytes; send several")])
    is_array = body.lstrip()[:1] == b"["
    try:
        raw = parse_json(body, levels + is_array)
    except BadJson as error:
        items = error.value if isinstance(error, TooDeep) and isinstance(error.value, list) else ()
        deep = [EventError(i, "", _TOO_DEEP) for i, item in enumerate(items) if is_deeper(item, levels)]
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


def kept_events(items: Sequence[Any], now_ms: int) -> list[Event]:
    """Events that some server accepted before: each has an id, and names and ids may be the engine's own. Raises
    BadRequest."""

    def needs_id() -> str:
        raise _Refused([("/id", "an event that was accepted before has an id")])

    return _events(items, now_ms, needs_id, [], tuple(EngineId), is_kept=True)


def _events(
    items: Sequence[Any],
    now_ms: int,
    new_id: Callable[[], str],
    large: Sequence[EventError],
    engine_ids: Collection[EngineId],
    *,
    is_kept: bool = False,
) -> list[Event]:
    reading = _Reading(now_ms, new_id, engine_ids, is_kept)
    reading.take(items)
    return reading.events(large)


class _Reading:
    """The events of a request, as far as they have been read, and what is wrong with the others."""

    def __init__(
        self,
        now_ms: int,
        new_id: Callable[[], str],
        engine_ids: Collection[EngineId] = _NO_ENGINE_IDS,
        is_kept: bool = False,
    ) -> None:
        self._how = (now_ms, new_id, engine_ids, is_kept)
        self._found: list[tuple[int, Event]] = []
        self._errors: list[EventError] = []
        self._status, self._next = 400, 0

    def take(self, items: Sequence[Any]) -> None:
        """Read the next events. Once there are too many errors, no more are looked at."""
        for index, item in enumerate(items, self._next):
            if len(self._errors) >= _MAX_ERRORS:
                break
            try:
                self._found.append((index, _event(item, *self._how)))
            except _Refused as refused:
                self._errors += [EventError(index, pointer, message) for pointer, message in refused.problems]
                self._status = max(self._status, refused.status)
        self._next += len(items)

    def events(self, large: Sequence[EventError]) -> list[Event]:
        """All of them. Raises BadRequest."""
        if errors := [*self._errors, *large]:
            raise BadRequest(self._status, errors, self._found)
        return [event for _, event in self._found]


def whole_event(fields: dict[str, Any]) -> Event:
    """An event that was filled in, as others handed it on: what they may have changed is looked at again. Raises
    BadRequest. What was filled in does not count towards its size."""
    problems = _problems(fields, (EngineId.WEBHOOK,))
    problems += [(f"/{name}", f"{name} is missing") for name in _FIELDS if name != "v" and fields.get(name) is None]
    body, status = b"", 400
    try:
        body = b"" if problems else _dump({name: fields.get(name) for name in _FIELDS})
    except _Refused as refused:
        problems = refused.problems
    if len(body) > MAX_EVENT_BYTES + _FILLED_IN:
        problems, status = [("", f"the event has {len(body):,} bytes, more than {MAX_EVENT_BYTES:,}")], 413
    if problems:
        raise BadRequest(status, [EventError(0, pointer, message) for pointer, message in problems])
    return event_from(fields, body)


def event_from(fields: dict[str, Any], body: bytes | None = None, seq: int = 0) -> Event:
    """An event from complete or partial fields that are known to be right."""
    name, data, user = fields["name"], fields.get("data") or {}, fields.get("user") or {}
    event_id, ts, v = fields["id"], fields["ts"], fields.get("v")
    if body is None:
        body = orjson.dumps({"name": name, "data": data, "user": user, "id": event_id, "ts": ts, "v": v})
    return Event(event_id, name, data, user, ts, v, body, seq, erased=fields.get("erased", False))


def erased_body(event: Event) -> bytes:
    """What is kept of an event when its user is erased, so that it is no news if it comes again."""
    kept = {"name": event.name, "data": {}, "user": {}, "id": event.id, "ts": event.ts, "v": event.v, "erased": True}
    return orjson.dumps(kept)


def next_event_id(taken: str) -> str:
    """Another id instead of one that was made for an event, and is taken."""
    return f"{(int(taken, 16) + 1) % (1 << 128):032x}"


def internal_event(name: str, data: dict[str, Any], user: dict[str, Any], event_id: str, ts: int) -> Event:
    """One of the engine's own events."""
    return event_from({"name": name, "data": data, "user": user, "id": event_id, "ts": ts})


def user_key(user: dict[str, Any]) -> str | None:
    """What lists call the user: `external_id`, else `id`, `email`, `phone`."""
    field = _user_field(user)
    return None if field is None else str(user[field])


def _user_field(user: dict[str, Any]) -> str | None:
    for field in ("external_id", "id", "email", "phone"):
        value = user.get(field)
        if value is None or value == "" or isinstance(value, bool):
            continue
        if isinstance(value, str | int):
            return field
    return None


def run_id(function_id: str, event_id: str, rerun: str = "") -> str:
    """A run's id: a function of function and event (and of a token for a run that is made again). 26 characters."""
    framed = f"{len(function_id)}:{len(rerun)}:{function_id}{rerun}{event_id}"
    digest = hashlib.blake2b(framed.encode(errors="surrogatepass"), digest_size=16)
    bits = int.from_bytes(digest.digest()) << 2
    return "".join([_BASE32[bits >> shift & 1023] for shift in range(120, -1, -10)])


# Ten bits as two characters of RFC 4648's base32, in small letters; `base64.b32encode` takes three times as long.
_BASE32 = [a + b for a in "abcdefghijklmnopqrstuvwxyz234567" for b in "abcdefghijklmnopqrstuvwxyz234567"]


Problems = list[tuple[str, str]]  # JSON pointer and message


class _Refused(Exception):
    def __init__(self, problems: Problems, status: int = 400) -> None:
        self.problems, self.status = problems, status


def _event(item: Any, now_ms: int, new_id: Callable[[], str], engine_ids: Collection[EngineId], is_kept: bool) -> Event:
    if not isinstance(item, dict):
        raise _Refused([("", 'an event is a JSON object such as {"name": "user/signed.up", "data": {}}')])
    problems = _problems(item, engine_ids, is_kept)
    if problems:
        raise _Refused(problems)
    get = item.get
    name, data, user, event_id, ts, v = get("name", ""), get("data"), get("user"), get("id"), get("ts"), get("v")
    fresh = event_id is None
    fields = {
        "name": name,
        "data": {} if data is None else data,
        "user": {} if user is None else user,
        "id": new_id() if fresh else event_id,
        "ts": now_ms if ts is None else ts,
        "v": v,
    }
    body = _dump(fields)
    # What we add must not push an event over the limit: then what was sent counts.
    if len(body) > MAX_EVENT_BYTES and (size := len(_dump(item))) > MAX_EVENT_BYTES:
        message = f"the event has {size:,} bytes, more than {MAX_EVENT_BYTES:,}; pass a reference to large data"
        raise _Refused([("", message)], 413)
    return Event(fields["id"], name, fields["data"], fields["user"], fields["ts"], v, body, 0, fresh)


def _dump(fields: dict[str, Any]) -> bytes:
    """Compact JSON of what is nested so that it can be written again some levels deeper, as in a list of the API."""
    try:
        return orjson.dumps([[[[[[fields]]]]]])[6:-6]
    except TypeError:
        raise _Refused([("", _TOO_DEEP)]) from None


def _problems(item: dict[Any, Any], engine_ids: Collection[EngineId], is_kept: bool = False) -> Problems:
    found: Problems = []
    name = item.get("name")
    if not isinstance(name, str) or not name:
        found.append(("/name", 'a name is needed, such as "user/signed.up"'))
    elif len(name) > 256 or _CONTROL.search(name):
        found.append(("/name", "a name has at most 256 characters, and no control characters"))
    elif name.startswith("stepwell/") and name != "stepwell/identify" and not is_kept:
        found.append(("/name", "names that begin with stepwell/ are the engine's own; choose another"))
    for field in ("data", "user"):
        value = item.get(field)
        if value is not None and not isinstance(value, dict):
            found.append((f"/{field}", f"{field} is a JSON object"))
    user = item.get("user")
    if isinstance(user, dict):
        known_by = _user_field(user)
        if known_by is not None and len(str(user[known_by])) > 256:
            found.append((f"/user/{known_by}", "a user is known by at most 256 characters"))
    event_id = item.get("id")
    if event_id is not None:
        if not isinstance(event_id, str) or not 1 <= len(event_id) <= 256 or _CONTROL.search(event_id):
            found.append(("/id", "an id is a text of 1 to 256 characters, without control characters"))
        elif (prefix := engine_prefix(event_id)) is not None and prefix not in engine_ids:
            found.append(("/id", engine_id_message(prefix)))
    ts = item.get("ts")
    if ts is not None and (type(ts) is not int or not 0 <= ts <= _MAX_TS):
        found.append(("/ts", "ts is a whole number of milliseconds since 1970"))
    v = item.get("v")
    if v is not None and (not isinstance(v, str) or len(v) > 128):
        found.append(("/v", 'v is a text of at most 128 characters, such as "2026-11-23.1"'))
    if not _KNOWN.issuperset(item):
        unknown = (field for field in item if field not in _KNOWN)
        found += [_unknown(field) for field in islice(unknown, _MOST_UNKNOWN)]
    return found


def engine_id_message(prefix: EngineId) -> str:
    return f"ids that begin with '{prefix}' are the engine's own; choose another"


def _unknown(field: str) -> tuple[str, str]:
    near = _nearest(field) if len(field) <= _LONGEST_MISSPELT else None
    hint = f"did you mean {near!r}?" if near else "put it into data"
    return f"/{escaped(field)}", f"the field {field[:50]!r} is unknown; {hint}"


@lru_cache(1000)
def _nearest(field: str) -> str | None:
    import difflib  # only who misspells a field waits for it

    return next(iter(difflib.get_close_matches(field, _FIELDS, 1)), None)


def large_integers_of_events(body: bytes, raw: Any) -> list[EventError]:
    """The integers of a JSON text that would silently become floats; `index` as in an array of events."""
    message = "the number does not fit into 64 bits; send it as a text"
    if not (pointers := large_integers(body)):
        return []
    if not isinstance(raw, list):
        return [EventError(0, pointer, message) for pointer in pointers]
    found = (pointer[1:].partition("/") for pointer in pointers)
    return [EventError(int(index), f"/{rest}" if slash else "", message) for index, slash, rest in found]

"""The envelope of one event: which fields a sender may write, what is filled in, and how large an event may be."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from functools import lru_cache
from itertools import islice
from typing import Any

import orjson

from stepwell.core.events.engine_ids import EngineId, engine_id_message, engine_prefix
from stepwell.core.events.events import Event, user_field
from stepwell.core.json_input import MAX_LEVELS, escaped

MAX_EVENT_BYTES = 256 * 1024
FIELDS = ("name", "data", "user", "id", "ts", "v")
_KNOWN = frozenset(FIELDS)
_MAX_TS = 253_402_300_799_999  # the end of the year 9999
_MOST_UNKNOWN = 20  # unknown fields of one event that are named
_LONGEST_MISSPELT = 10  # characters: what is longer is no misspelt field
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
TOO_DEEP = f"the event is nested too deeply; it may have {MAX_LEVELS} levels"

Problems = list[tuple[str, str]]  # JSON pointer and message


class InvalidEnvelope(Exception):
    """The event is refused; `status` is 400 or 413."""

    def __init__(self, problems: Problems, status: int = 400) -> None:
        self.problems, self.status = problems, status


def new_event(
    item: Any, now_ms: int, new_id: Callable[[], str], engine_ids: Collection[EngineId], accepted_before: bool
) -> Event:
    """The event that a sender wrote, with the fields filled in that it left out. `engine_ids`: ids of the engine's own
    that it may use. `accepted_before`: the name may be the engine's own too. Raises InvalidEnvelope."""
    if not isinstance(item, dict):
        raise InvalidEnvelope([("", 'an event is a JSON object such as {"name": "user/signed.up", "data": {}}')])
    problems = envelope_problems(item, engine_ids, accepted_before)
    if problems:
        raise InvalidEnvelope(problems)
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
    body = event_body(fields)
    # What we add must not push an event over the limit: then what was sent counts.
    if len(body) > MAX_EVENT_BYTES and (size := len(event_body(item))) > MAX_EVENT_BYTES:
        message = f"the event has {size:,} bytes, more than {MAX_EVENT_BYTES:,}; pass a reference to large data"
        raise InvalidEnvelope([("", message)], 413)
    return Event(fields["id"], name, fields["data"], fields["user"], fields["ts"], v, body, 0, fresh)


def event_body(fields: dict[str, Any]) -> bytes:
    """The fields as compact JSON. Raises InvalidEnvelope if they nest so deep that a list of the API, which holds them
    some levels deeper, could not be written."""
    try:
        return orjson.dumps([[[[[[fields]]]]]])[6:-6]
    except TypeError:
        raise InvalidEnvelope([("", TOO_DEEP)]) from None


def envelope_problems(
    item: dict[Any, Any], engine_ids: Collection[EngineId], accepted_before: bool = False
) -> Problems:
    """What is wrong with the fields of an event."""
    found: Problems = []
    get = item.get
    name, data, user, event_id, ts, v = get("name"), get("data"), get("user"), get("id"), get("ts"), get("v")
    if not isinstance(name, str) or not name:
        found.append(("/name", 'a name is needed, such as "user/signed.up"'))
    elif len(name) > 256 or _has_control(name):
        found.append(("/name", "a name has at most 256 characters, and no control characters"))
    elif name.startswith("stepwell/") and name != "stepwell/identify" and not accepted_before:
        found.append(("/name", "names that begin with stepwell/ are the engine's own; choose another"))
    if data is not None and not isinstance(data, dict):
        found.append(("/data", "data is a JSON object"))
    if user is not None:
        if not isinstance(user, dict):
            found.append(("/user", "user is a JSON object"))
        elif (known_by := user_field(user)) is not None and len(str(user[known_by])) > 256:
            found.append((f"/user/{known_by}", "a user is known by at most 256 characters"))
    if event_id is not None:
        if not isinstance(event_id, str) or not 1 <= len(event_id) <= 256 or _has_control(event_id):
            found.append(("/id", "an id is a text of 1 to 256 characters, without control characters"))
        elif (prefix := engine_prefix(event_id)) is not None and prefix not in engine_ids:
            found.append(("/id", engine_id_message(prefix)))
    if ts is not None and (type(ts) is not int or not 0 <= ts <= _MAX_TS):
        found.append(("/ts", "ts is a whole number of milliseconds since 1970"))
    if v is not None and (not isinstance(v, str) or len(v) > 128):
        found.append(("/v", 'v is a text of at most 128 characters, such as "2026-11-23.1"'))
    if not _KNOWN.issuperset(item):
        unknown = (field for field in item if field not in _KNOWN)
        found += [_unknown(field) for field in islice(unknown, _MOST_UNKNOWN)]
    return found


def _has_control(text: str) -> bool:
    """Whether there are control characters. Most texts are printable, which is found faster."""
    return not text.isprintable() and _CONTROL.search(text) is not None


def _unknown(field: str) -> tuple[str, str]:
    near = _nearest(field) if len(field) <= _LONGEST_MISSPELT else None
    hint = f"did you mean {near!r}?" if near else "put it into data"
    return f"/{escaped(field)}", f"the field {field[:50]!r} is unknown; {hint}"


@lru_cache(1000)
def _nearest(field: str) -> str | None:
    import difflib  # only who misspells a field waits for it

    return next(iter(difflib.get_close_matches(field, FIELDS, 1)), None)

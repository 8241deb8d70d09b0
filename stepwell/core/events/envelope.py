"""The envelope of an event: the fields that a sender may set, their defaults, and the maximum size."""

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
MAX_TS = 253_402_300_799_999  # the end of the year 9999
_MOST_UNKNOWN = 20  # unknown fields of one event that are reported
_LONGEST_MISSPELT = 10  # characters; a longer name is not treated as a misspelt field
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
TOO_DEEP = f"the event is nested more than {MAX_LEVELS} levels deep; flatten it"

Problems = list[tuple[str, str]]  # JSON pointer and message


class InvalidEnvelope(Exception):
    """The event is refused; `status` is 400 or 413."""

    def __init__(self, problems: Problems, status: int = 400) -> None:
        self.problems, self.status = problems, status


def new_event(
    item: Any, now_ms: int, new_id: Callable[[], str], engine_ids: Collection[EngineId], accepted_before: bool
) -> Event:
    """The event from a sender's JSON, with defaults for the missing fields. Raises InvalidEnvelope.

    `engine_ids`: the reserved prefixes that the id may have. `accepted_before`: the name may be a reserved one too.
    """
    if not isinstance(item, dict):
        raise InvalidEnvelope([("", 'an event must be a JSON object such as {"name": "user/signed.up", "data": {}}')])
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
    # Defaults must not make an event too large, so the size of what was sent counts.
    if len(body) > MAX_EVENT_BYTES and (size := len(event_body(item))) > MAX_EVENT_BYTES:
        message = f"the event has {size:,} bytes, more than {MAX_EVENT_BYTES:,}; send a reference to large data"
        raise InvalidEnvelope([("", message)], 413)
    return Event(fields["id"], name, fields["data"], fields["user"], fields["ts"], v, body, 0, fresh)


def event_body(fields: dict[str, Any]) -> bytes:
    """The fields as compact JSON. Raises InvalidEnvelope if they are nested too deeply.

    Lists of the API contain the event a few levels deeper, so it is written inside six lists here.
    """
    try:
        return orjson.dumps([[[[[[fields]]]]]])[6:-6]
    except TypeError:
        raise InvalidEnvelope([("", TOO_DEEP)]) from None


def envelope_problems(
    item: dict[Any, Any], engine_ids: Collection[EngineId], accepted_before: bool = False
) -> Problems:
    """The problems in the fields of an event."""
    found: Problems = []
    get = item.get
    name, data, user, event_id, ts, v = get("name"), get("data"), get("user"), get("id"), get("ts"), get("v")
    if not isinstance(name, str) or not name:
        found.append(("/name", 'name is missing or not a text; add one such as "user/signed.up"'))
    elif len(name) > 256 or _has_control(name):
        found.append(("/name", "name must have at most 256 characters, and no control characters"))
    elif name.startswith("stepwell/") and name != "stepwell/identify" and not accepted_before:
        found.append(("/name", "names that begin with stepwell/ are reserved for the engine; choose another name"))
    if data is not None and not isinstance(data, dict):
        found.append(("/data", "data must be a JSON object"))
    if user is not None:
        if not isinstance(user, dict):
            found.append(("/user", "user must be a JSON object"))
        elif (id_field := user_field(user)) is not None and len(str(user[id_field])) > 256:
            found.append((f"/user/{id_field}", f"{id_field} of a user must have at most 256 characters"))
    if event_id is not None:
        if not isinstance(event_id, str) or not 1 <= len(event_id) <= 256 or _has_control(event_id):
            found.append(("/id", "id must be a text of 1 to 256 characters, without control characters"))
        elif (prefix := engine_prefix(event_id)) is not None and prefix not in engine_ids:
            found.append(("/id", engine_id_message(prefix)))
    if ts is not None and (type(ts) is not int or not 0 <= ts <= MAX_TS):
        found.append(("/ts", "ts must be a whole number of milliseconds since 1970"))
    if v is not None and (not isinstance(v, str) or len(v) > 128):
        found.append(("/v", 'v must be a text of at most 128 characters, such as "2026-11-23.1"'))
    if not _KNOWN.issuperset(item):
        unknown = (field for field in item if field not in _KNOWN)
        found += [_unknown(field) for field in islice(unknown, _MOST_UNKNOWN)]
    return found


def _has_control(text: str) -> bool:
    """Whether a text has control characters. `isprintable` is faster, and true for most texts."""
    return not text.isprintable() and _CONTROL.search(text) is not None


def _unknown(field: str) -> tuple[str, str]:
    near = _nearest(field) if len(field) <= _LONGEST_MISSPELT else None
    hint = f"did you mean {near!r}?" if near else "move it into data"
    return f"/{escaped(field)}", f"unknown field {field[:50]!r}; {hint}"


@lru_cache(1000)
def _nearest(field: str) -> str | None:
    import difflib  # imported late: needed only for misspelt fields

    return next(iter(difflib.get_close_matches(field, FIELDS, 1)), None)

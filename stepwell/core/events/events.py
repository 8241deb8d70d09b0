"""Events, and what follows from the content of one: its user, the ids of its runs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Invalid:
    """A place in an event (JSON pointer, RFC 6901) that does not match its schema, and why."""

    pointer: str
    message: str


@dataclass(slots=True)
class Event:
    """An accepted event. `body` is its JSON text, `position` where it was accepted (0: not yet); `fresh` if its
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
    position: int = 0
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

    def at_position(self, position: int) -> Event:
        """The same event as it was accepted."""
        return Event(
            self.id, self.name, self.data, self.user, self.ts, self.v, self.body, position, self.fresh, self.invalid,
            self.erased, self.origin,
        )  # fmt: skip

    @classmethod
    def stored(cls, position: int, body: bytes) -> Event:
        """An event as it was kept."""
        return event_from(orjson.loads(body), body, position)


def event_from(fields: dict[str, Any], body: bytes | None = None, position: int = 0) -> Event:
    """An event from complete or partial fields that are known to be right."""
    name, data, user = fields["name"], fields.get("data") or {}, fields.get("user") or {}
    event_id, ts, v = fields["id"], fields["ts"], fields.get("v")
    if body is None:
        body = orjson.dumps({"name": name, "data": data, "user": user, "id": event_id, "ts": ts, "v": v})
    return Event(event_id, name, data, user, ts, v, body, position, erased=fields.get("erased", False))


def erased_body(event: Event) -> bytes:
    """The body of an event whose user is erased. It has no data; its id is kept, so that a duplicate is
    recognised."""
    kept = {"name": event.name, "data": {}, "user": {}, "id": event.id, "ts": event.ts, "v": event.v, "erased": True}
    return orjson.dumps(kept)


def next_event_id(taken: str) -> str:
    """An id to try instead of a generated one that is taken."""
    return f"{(int(taken, 16) + 1) % (1 << 128):032x}"


def internal_event(name: str, data: dict[str, Any], user: dict[str, Any], event_id: str, ts: int) -> Event:
    """One of the engine's own events."""
    return event_from({"name": name, "data": data, "user": user, "id": event_id, "ts": ts})


def user_key(user: dict[str, Any]) -> str | None:
    """The user's name in lists: `external_id`, else `id`, `email`, `phone`; None without any of them."""
    field = user_field(user) if user else None
    return None if field is None else str(user[field])


def user_field(user: dict[str, Any]) -> str | None:
    """The field that `user_key` takes."""
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

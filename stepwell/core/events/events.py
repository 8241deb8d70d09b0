"""Events, and the values that are derived from one: the key of the user, the ids of the runs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Invalid:
    """A place in an event (JSON pointer, RFC 6901) that does not match the schema, with a message."""

    pointer: str
    message: str


@dataclass(slots=True)
class Event:
    """An event.

    `body`: the JSON text. `position`: the place in the order of acceptance, 0 if not accepted yet. `fresh`: the id was
    generated here, so the event cannot be a duplicate. `invalid`: the places that do not match the event type, until
    the event is stored. `erased`: data and user were erased together with the user. `origin`: for a fresh event that
    passed through queues, distinguishes it from another event with the same id.
    """

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
        """The value of `event` in expressions."""
        return {"name": self.name, "data": self.data, "user": self.user, "id": self.id, "ts": self.ts, "v": self.v}

    def rename(self, event_id: str) -> None:
        """Replaces the generated id, before the event is stored."""
        self.id = event_id
        self.body = orjson.dumps(self.as_json())

    def at_position(self, position: int) -> Event:
        """A copy of the event with its position in the order of acceptance."""
        return Event(
            self.id, self.name, self.data, self.user, self.ts, self.v, self.body, position, self.fresh, self.invalid,
            self.erased, self.origin,
        )  # fmt: skip

    @classmethod
    def stored(cls, position: int, body: bytes) -> Event:
        """An event from the store."""
        return event_from(orjson.loads(body), body, position)


def event_from(fields: dict[str, Any], body: bytes | None = None, position: int = 0) -> Event:
    """An event from fields that are known to be valid. `data`, `user` and `v` may be missing."""
    name, data, user = fields["name"], fields.get("data") or {}, fields.get("user") or {}
    event_id, ts, v = fields["id"], fields["ts"], fields.get("v")
    if body is None:
        body = orjson.dumps({"name": name, "data": data, "user": user, "id": event_id, "ts": ts, "v": v})
    return Event(event_id, name, data, user, ts, v, body, position, erased=fields.get("erased", False))


def erased_body(event: Event) -> bytes:
    """The body of an event whose user is erased: without data and user. The id stays, to recognise duplicates."""
    rest = {"name": event.name, "data": {}, "user": {}, "id": event.id, "ts": event.ts, "v": event.v, "erased": True}
    return orjson.dumps(rest)


def next_event_id(taken: str) -> str:
    """Another id to try if a generated id is taken."""
    return f"{(int(taken, 16) + 1) % (1 << 128):032x}"


def internal_event(name: str, data: dict[str, Any], user: dict[str, Any], event_id: str, ts: int) -> Event:
    """An event that the engine sends."""
    return event_from({"name": name, "data": data, "user": user, "id": event_id, "ts": ts})


def user_key(user: dict[str, Any]) -> str | None:
    """The text by which lists find a user: `external_id`, else `id`, `email` or `phone`. None without any of them."""
    field = user_field(user) if user else None
    return None if field is None else str(user[field])


def user_field(user: dict[str, Any]) -> str | None:
    """The name of the field that `user_key` returns the value of."""
    for field in ("external_id", "id", "email", "phone"):
        value = user.get(field)
        if value is None or value == "" or isinstance(value, bool):
            continue
        if isinstance(value, str | int):
            return field
    return None


def run_id(function_id: str, event_id: str, rerun: str = "") -> str:
    """The id of a run, of 26 characters. It is derived from the ids of the function and the event.

    `rerun`: a token for each further run of the same function and event.
    """
    framed = f"{len(function_id)}:{len(rerun)}:{function_id}{rerun}{event_id}"
    digest = hashlib.blake2b(framed.encode(errors="surrogatepass"), digest_size=16)
    bits = int.from_bytes(digest.digest()) << 2
    return "".join([_BASE32[bits >> shift & 1023] for shift in range(120, -1, -10)])


# Two characters of base32 (RFC 4648), in lower case, for each ten bits. `base64.b32encode` takes three times as long.
_BASE32 = [a + b for a in "abcdefghijklmnopqrstuvwxyz234567" for b in "abcdefghijklmnopqrstuvwxyz234567"]

"""Reads a stream of Redis or Valkey as a member of a consumer group.

Entries that were read and not acknowledged stay pending with their consumer. So the consumer has a name that is equal
after a restart, and begins with its own pending entries. Those that another consumer has not acknowledged for long are
claimed: that consumer may be gone, and Redis does not tell.
https://redis.io/docs/latest/develop/data-types/streams/ ; https://redis.io/docs/latest/commands/xautoclaim/
"""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from typing import Any

import orjson
import redis

from stepwell.core.duration import parse_duration
from stepwell.core.sources.places import Place
from stepwell.core.sources.records import Record, header_text
from stepwell.local.sources.lag import Lag
from stepwell.local.sources.reader import CannotSeek, Polled, ReaderSettings

_GROUP = "stepwell"
_CLAIM_AFTER = "1m"
_TIMEOUT_S = 10.0


class RedisReader:
    """Implements `Reader`."""

    def __init__(self, settings: ReaderSettings) -> None:
        fields = settings.settings
        self._url, self._stream, self._start = fields["url"], fields["stream"], fields.get("start", "earliest")
        self._group, self._field = fields.get("group", _GROUP), fields.get("field")
        self._consumer = f"stepwell-{settings.identity}"
        self._claim_ms = parse_duration(fields.get("claim_after", _CLAIM_AFTER))
        self._claim_due, self._claim_from = 0.0, "0-0"
        self._pending_after: str | None = "0"  # own pending entries are read after this id; None: all are read
        self._client: Any = None

    def open(self) -> None:
        options: dict[str, Any] = {"client_name": self._consumer, "protocol": 2}
        self._client = redis.Redis.from_url(
            self._url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, **options
        )
        begin = "$" if self._start == "latest" else "0"
        try:
            self._client.xgroup_create(self._stream, self._group, begin, mkstream=True)
        except redis.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    def poll(self, most: int, wait_s: float) -> Polled:
        if self._pending_after is not None:
            entries = self._read(self._pending_after, most, 0.0)
            self._pending_after = _text(entries[-1][0]) if entries else None
            if entries:
                return self._polled(entries)
        if time.monotonic() >= self._claim_due:
            entries = self._claimed(most)
            if entries:
                return self._polled(entries)
        return self._polled(self._read(">", most, wait_s))

    def _read(self, after: str, most: int, wait_s: float) -> list[Any]:
        block = max(1, round(wait_s * 1000)) if wait_s else None
        keys = {self._stream: after}
        answer: Any = self._client.xreadgroup(self._group, self._consumer, keys, count=most, block=block)
        entries: list[Any] = answer[0][1] if answer else []
        return entries

    def _claimed(self, most: int) -> list[Any]:
        """Entries that a consumer has read and not acknowledged for a long time."""
        answer = self._client.xautoclaim(
            self._stream, self._group, self._consumer, self._claim_ms, self._claim_from, count=most
        )
        self._claim_from = _text(answer[0])
        if self._claim_from == "0-0":  # all pending entries were looked at
            self._claim_due = time.monotonic() + self._claim_ms / 2000
        return [entry for entry in answer[1] if entry[0] is not None]

    def _polled(self, entries: list[Any]) -> Polled:
        # A pending entry that was deleted from the stream has no fields. It is acknowledged, and makes no record.
        ids = [entry[0] for entry in entries]
        return Polled([self._record(_text(i), fields) for i, fields in entries if fields], ids or None)

    def _record(self, entry_id: str, fields: Mapping[bytes, bytes]) -> Record:
        body: bytes | None = None
        headers: dict[str, str] = {}
        problem = ""
        if self._field is None:
            try:
                body = orjson.dumps({name.decode(): value.decode() for name, value in fields.items()})
            except UnicodeDecodeError:
                problem = "a field is not UTF-8; name the field with the body in `field`, and set `body: base64`"
                body = orjson.dumps({header_text(n): base64.b64encode(v).decode() for n, v in fields.items()})
        else:
            wanted = self._field.encode()
            body = fields.get(wanted)
            headers = {header_text(n).lower(): header_text(v) for n, v in fields.items() if n != wanted}
            if body is None:
                problem = f"the entry has no field {self._field!r}"
        at = int(entry_id.partition("-")[0])
        place = {"stream": self._stream, "key": entry_id, "timestamp": at}
        return Record(f"redis/{self._stream}/{entry_id}", body, headers, place, at, problem)

    def commit(self, polled: Polled) -> None:
        if polled.token:
            self._client.xack(self._stream, self._group, *polled.token)

    def lag(self) -> Lag:
        group = self._found_group()
        if group is None:
            return Lag()
        unread = self._client.xrange(self._stream, f"({_text(group['last-delivered-id'])}", count=1)
        seconds = 0.0
        if unread:
            server_s, _ = self._client.time()
            seconds = max(0.0, server_s - int(_text(unread[0][0]).partition("-")[0]) / 1000)
        lag = group.get("lag")  # null when entries were deleted; absent before Redis 7
        return Lag(0 if not unread else None if lag is None else int(lag), seconds)

    def position(self) -> Any:
        group = self._found_group()
        if group is None:
            raise CannotSeek("the consumer group is gone; try again")
        if self._client.xpending_range(self._stream, self._group, "-", "+", 1, self._consumer):
            raise CannotSeek("some records are still being accepted; try again in some seconds")
        return _text(group["last-delivered-id"])

    def is_before(self, record: Record, position: Any) -> bool:
        return _order(record.place["key"]) <= _order(position)

    def seek(self, place: Place) -> None:
        try:
            after = "0-0" if place.time is None and not place.position else _before(place)
        except ValueError:
            message = f"{place.position!r} is not the id of an entry; write one such as 1700000000000-0"
            raise CannotSeek(message) from None
        self._client.xgroup_setid(self._stream, self._group, after)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _found_group(self) -> dict[str, Any] | None:
        for group in self._client.xinfo_groups(self._stream):
            if _text(group["name"]) == self._group:
                return dict(group)
        return None


def _before(place: Place) -> str:
    """The id after which the entries of a place come."""
    ms, number = (place.time, 0) if place.time is not None else _order(place.position)
    if number:
        return f"{ms}-{number - 1}"
    return f"{ms - 1}-{2**64 - 1}" if ms > 0 else "0-0"


def _order(entry_id: str) -> tuple[int, int]:
    ms, _, number = entry_id.partition("-")
    return int(ms), int(number or 0)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value

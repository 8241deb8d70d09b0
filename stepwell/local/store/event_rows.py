"""Event rows in the order of acceptance, and the keys under which waits find them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import orjson

from stepwell.core.events.events import Event, next_event_id, user_key
from stepwell.core.routing.not_started import NO_MISSES, Entries, misses_json
from stepwell.core.run.invalid_events import MOST_SHOWN
from stepwell.local.database.not_started_tables import table_id
from stepwell.local.store.users import UserIndex
from stepwell.platform import Accepted, NewEvent, NotWritten

_INSERT = (
    "INSERT OR IGNORE INTO events (seq, id, name, user, accepted_at, body, misses, replay, invalid)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_BY_NAME = "SELECT seq, body FROM events WHERE name = ? AND seq > ? AND accepted_at < ? AND replay IS NULL ORDER BY seq"
_BY_KEY = (
    "SELECT seq, body FROM event_keys JOIN events ON events.seq = event_keys.event"
    " WHERE key = ? AND event > ? AND accepted_at < ? ORDER BY event"
)


class EventRows:
    """Reads and writes events. `newest` is the position of the newest accepted event."""

    def __init__(self, connection: sqlite3.Connection, users: UserIndex, newest: int) -> None:
        self._connection, self._users, self.newest = connection, users, newest

    def put(self, events: Sequence[NewEvent], now: int) -> list[Accepted | NotWritten | None]:
        """Accepts events. The result has None in the place of a duplicate."""
        known = self._existing([new.event.id for new in events if not new.event.fresh])
        accepted: list[Accepted | NotWritten | None] = []
        newest = self.newest + len(events)
        number: Callable[[Entries], int] | None = None
        rows, keys = [], []
        for new in events:
            event = new.event
            if event.id in known:
                accepted.append(None)
                continue
            if not event.fresh:
                known.add(event.id)
            self.newest = position = self.newest + 1
            accepted.append(Accepted(position, new.starts))
            misses = None
            if new.not_started is not NO_MISSES:
                number = number or cache(lambda entries: table_id(self._connection, entries, newest))
                misses = misses_json(new.not_started, number)
            invalid = orjson.dumps(event.invalid[:MOST_SHOWN]) if event.invalid else None
            user = None
            if event.user:
                user = user_key(event.user)
                if new.replay is None:
                    self._users.record(event, position, now)
            rows.append((position, event.id, event.name, user, now, event.body, misses, new.replay, invalid))
            if new.keys:
                keys += [(key, position) for key in new.keys]
        if rows and self._connection.executemany(_INSERT, rows).rowcount != len(rows):
            self._insert_under_other_ids(events, accepted, rows)
        if keys:
            self._connection.executemany("INSERT OR IGNORE INTO event_keys VALUES (?, ?)", keys)
        return accepted

    def _insert_under_other_ids(
        self,
        events: Sequence[NewEvent],
        accepted: Sequence[Accepted | NotWritten | None],
        rows: Sequence[tuple[Any, ...]],
    ) -> None:
        """Gives new ids to events whose generated id exists already: such ids are not checked before the insert."""
        stored = {seq for (seq,) in self._connection.execute("SELECT seq FROM events WHERE seq >= ?", (rows[0][0],))}
        pairs = zip(events, accepted, strict=True)
        by_position = {put.position: new.event for new, put in pairs if isinstance(put, Accepted)}
        for position, _, name, user, at, _, *rest in rows:
            if position in stored:
                continue
            event = by_position[position]
            while self._existing([event.id]):
                event.rename(next_event_id(event.id))
            self._connection.execute(_INSERT, (position, event.id, name, user, at, event.body, *rest))

    def _existing(self, ids: Sequence[str]) -> set[str]:
        known: set[str] = set()
        for start in range(0, len(ids), 500):
            some = ids[start : start + 500]
            marks = ",".join("?" * len(some))
            known.update(i for (i,) in self._connection.execute(f"SELECT id FROM events WHERE id IN ({marks})", some))
        return known

    def read(self, ids: Sequence[str]) -> dict[str, Event]:
        """Stored events by id; unknown ids are left out."""
        found = {}
        for event_id in ids:
            row = self._connection.execute("SELECT seq, body FROM events WHERE id = ?", (event_id,)).fetchone()
            if row:
                found[event_id] = Event.stored(*row)
        return found

    def find(self, name: str, key: bytes | None, after: int, before: int) -> Iterator[Event]:
        """Events with this name and key, earliest first, after position `after` and before time `before` (ms)."""
        sql, value = (_BY_NAME, name) if key is None else (_BY_KEY, key)
        for row in self._connection.execute(sql, (value, after, before)):
            yield Event.stored(*row)

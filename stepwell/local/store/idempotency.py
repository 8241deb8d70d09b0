"""Which run counts for a value of `idempotency`, in SQLite: a row of the batch's own transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import orjson

from stepwell.core.events.events import Event
from stepwell.core.routing.idempotency import WINDOW_MS
from stepwell.core.routing.not_started import NotStarted, with_misses


class LocalIdempotency:
    """Implements `platform.Idempotency`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def claim(self, function_id: str, value: bytes, run_id: str, position: int) -> str:
        # Not the time of now: an event may have been kept while its function was paused.
        (at,) = self._connection.execute("SELECT accepted_at FROM events WHERE seq = ?", (position,)).fetchone()
        sql = "SELECT run FROM once WHERE function = ? AND value = ? AND until > ?"
        row: tuple[str] | None = self._connection.execute(sql, (function_id, value, at)).fetchone()
        if row is not None:
            return row[0]
        sql = "INSERT OR REPLACE INTO once VALUES (?, ?, ?, ?)"
        self._connection.execute(sql, (function_id, value, run_id, at + WINDOW_MS))
        return run_id

    def forget(self, function_id: str, value: bytes, run_id: str) -> None:
        """Take a claim back: the value is that of somebody who was erased."""
        sql = "DELETE FROM once WHERE function = ? AND value = ? AND run = ?"
        self._connection.execute(sql, (function_id, value, run_id))

    def refuse(self, event: Event, misses: Sequence[NotStarted]) -> None:
        (kept,) = self._connection.execute("SELECT misses FROM events WHERE seq = ?", (event.position,)).fetchone()
        content = orjson.dumps(with_misses(kept, misses))
        self._connection.execute("UPDATE events SET misses = ? WHERE seq = ?", (content, event.position))


def forget(connection: sqlite3.Connection, now: int, most: int) -> bool:
    """Delete rows whose time is over, at most so many; whether there may be more."""
    deleted = connection.execute(
        "DELETE FROM once WHERE (function, value) IN (SELECT function, value FROM once WHERE until <= ? LIMIT ?)",
        (now, most),
    )
    return deleted.rowcount == most

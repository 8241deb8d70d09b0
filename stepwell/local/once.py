"""Which run counts for a value of `idempotency`, in SQLite: a row of the batch's own transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import orjson

from stepwell.core.catalog import Miss
from stepwell.core.idempotency import WINDOW_MS
from stepwell.platform import Accepted, NewEvent


class LocalOnce:
    """Implements `platform.Once`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def claim(self, function_id: str, value: bytes, run_id: str, accepted: Accepted, now: int) -> str:
        sql = "SELECT run FROM once WHERE function = ? AND value = ? AND until > ?"
        row: tuple[str] | None = self._connection.execute(sql, (function_id, value, now)).fetchone()
        if row is not None:
            return row[0]
        sql = "INSERT OR REPLACE INTO once VALUES (?, ?, ?, ?)"
        self._connection.execute(sql, (function_id, value, run_id, now + WINDOW_MS))
        return run_id

    def refuse(self, new: NewEvent, accepted: Accepted, misses: Sequence[Miss], now: int) -> None:
        content = orjson.dumps([miss.as_json() for miss in (*new.misses, *misses)])
        self._connection.execute("UPDATE events SET misses = ? WHERE seq = ?", (content, accepted.position))


def forget(connection: sqlite3.Connection, now: int, most: int) -> bool:
    """Delete rows whose time is over, at most so many; whether there may be more."""
    deleted = connection.execute(
        "DELETE FROM once WHERE (function, value) IN (SELECT function, value FROM once WHERE until <= ? LIMIT ?)",
        (now, most),
    )
    return deleted.rowcount == most

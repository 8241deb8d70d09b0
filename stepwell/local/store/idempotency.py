"""The run that holds each idempotency value, in SQLite: one row, written in the batch's transaction."""

from __future__ import annotations

import sqlite3

from stepwell.core.routing.idempotency import WINDOW_MS


class LocalIdempotency:
    """Implements `start_checks.Idempotency`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def claim(self, function_id: str, value: bytes, run_id: str, position: int) -> str:
        # The event's time, not the current one: the event may have waited while the function was paused.
        (at,) = self._connection.execute("SELECT accepted_at FROM events WHERE seq = ?", (position,)).fetchone()
        sql = "SELECT run FROM once WHERE function = ? AND value = ? AND until > ?"
        row: tuple[str] | None = self._connection.execute(sql, (function_id, value, at)).fetchone()
        if row is not None:
            return row[0]
        sql = "INSERT OR REPLACE INTO once VALUES (?, ?, ?, ?)"
        self._connection.execute(sql, (function_id, value, run_id, at + WINDOW_MS))
        return run_id

    def release(self, function_id: str, value: bytes, run_id: str) -> None:
        """Releases a claim: the run is not started, or the value belongs to an erased user."""
        sql = "DELETE FROM once WHERE function = ? AND value = ? AND run = ?"
        self._connection.execute(sql, (function_id, value, run_id))


def delete_expired(connection: sqlite3.Connection, now: int, most: int) -> bool:
    """Deletes at most `most` expired rows. Returns whether there may be more."""
    deleted = connection.execute(
        "DELETE FROM once WHERE (function, value) IN (SELECT function, value FROM once WHERE until <= ? LIMIT ?)",
        (now, most),
    )
    return deleted.rowcount == most

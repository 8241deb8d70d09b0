"""The latest starts of runs, by the key of a function's `rate_limit`, in SQLite: a row for each start.

The starts of a key are numbered, so the start that decides is found by its number, however high the limit is.
"""

from __future__ import annotations

import sqlite3

from stepwell.core.flow.windows import next_start
from stepwell.core.plan import RateLimit


class LocalRateLimits:
    """Implements `start_checks.RateLimits`. A start is counted in the transaction that creates the run."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def claim(
        self, function_id: str, key: bytes, limit: RateLimit, run_id: str, now: int, *, again: bool
    ) -> int | None:
        execute = self._connection.execute
        sql = "SELECT number, at FROM rate_starts WHERE function = ? AND key = ? ORDER BY number DESC LIMIT 1"
        newest, newest_at = execute(sql, (function_id, key)).fetchone() or (0, 0)
        number = newest + 1
        sql = "SELECT at FROM rate_starts WHERE function = ? AND key = ? AND number = ?"
        row = execute(sql, (function_id, key, number - limit.limit)).fetchone()
        if (possible_at := next_start(row and row[0], limit.period_ms, now)) is not None:
            return possible_at
        at = max(now, newest_at)
        row = (function_id, key, number, at, at + limit.period_ms, run_id)
        execute("INSERT INTO rate_starts VALUES (?, ?, ?, ?, ?, ?)", row)
        sql = "DELETE FROM rate_starts WHERE function = ? AND key = ? AND number <= ? AND until <= ?"
        execute(sql, (function_id, key, number - limit.limit, now))
        return None

    def release(self, function_id: str, key: bytes, run_id: str) -> None:
        """Deletes the start of a run: it is the newest of the key, because this transaction has just counted it."""
        sql = "SELECT max(number) FROM rate_starts WHERE function = ? AND key = ?"
        (newest,) = self._connection.execute(sql, (function_id, key)).fetchone()
        sql = "DELETE FROM rate_starts WHERE function = ? AND key = ? AND number = ? AND run = ?"
        self._connection.execute(sql, (function_id, key, newest, run_id))

    def forget(self, function_id: str, key: bytes, run_id: str) -> None:
        """Forgets which run started, because its user was erased.

        The start itself counts until the period ends, if runs of others have the same key; otherwise nothing of the key
        stays.
        """
        of_key = "function = ? AND key = ?"
        sql = f"UPDATE rate_starts SET run = '' WHERE {of_key} AND run = ?"
        self._connection.execute(sql, (function_id, key, run_id))
        sql = (
            f"DELETE FROM rate_starts WHERE {of_key} AND NOT EXISTS"
            " (SELECT 1 FROM rate_starts AS others JOIN runs ON runs.id = others.run"
            " WHERE others.function = ? AND others.key = ?)"
        )
        self._connection.execute(sql, 2 * (function_id, key))


def delete_expired(connection: sqlite3.Connection, now: int, most: int) -> bool:
    """Deletes at most `most` starts whose period is over. Returns whether there may be more."""
    deleted = connection.execute(
        "DELETE FROM rate_starts WHERE (function, key, number) IN"
        " (SELECT function, key, number FROM rate_starts WHERE until <= ? LIMIT ?)",
        (now, most),
    )
    return deleted.rowcount == most


def move_back(connection: sqlite3.Connection, by_ms: int, now: int) -> None:
    """Moves back the starts that lie in the future after the clock was set back, but not before earlier starts."""
    moved = (
        "max(at - ?, coalesce((SELECT max(past.at) FROM rate_starts AS past WHERE past.function = rate_starts.function"
        " AND past.key = rate_starts.key AND past.at <= ?), 0))"
    )
    sql = f"UPDATE rate_starts SET at = {moved}, until = until - at + {moved} WHERE until > ? AND at > ?"
    connection.execute(sql, (by_ms, now, by_ms, now, now, now))

"""What the Faktory server stores: results that workers have sent, jobs for later, and paused queues.

Rows are written as calls of a batch. The methods that read may be called between batches.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from stepwell.platform import AttemptId


class FaktoryRows:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    # --- results of attempts, until the attempts end ---------------------------------------------------------------

    def attempts_with_results(self) -> set[AttemptId]:
        return set(self._connection.execute("SELECT run, step, attempt FROM faktory_results"))

    def result(self, attempt: AttemptId) -> bytes | None:
        sql = "SELECT body FROM faktory_results WHERE run = ? AND step = ? AND attempt = ?"
        row = self._connection.execute(sql, attempt).fetchone()
        body: bytes | None = None if row is None else row[0]
        return body

    def put_result(self, attempt: AttemptId, body: bytes) -> None:
        """Stores the result of an attempt, in place of an earlier one."""
        self._connection.execute("INSERT OR REPLACE INTO faktory_results VALUES (?, ?, ?, ?)", (*attempt, body))

    def remove_results(self, attempts: Iterable[AttemptId]) -> None:
        sql = "DELETE FROM faktory_results WHERE run = ? AND step = ? AND attempt = ?"
        self._connection.executemany(sql, attempts)

    # --- jobs for later --------------------------------------------------------------------------------------------

    def put_later(self, jobs: Iterable[tuple[int, str, bytes]]) -> None:
        """Stores events by due time and id. An event that is stored already stays as it is."""
        self._connection.executemany(
            "INSERT OR IGNORE INTO faktory_scheduled (due_at, id, body) VALUES (?, ?, ?)", jobs
        )

    def due(self, now: int, most: int) -> list[tuple[str, bytes]]:
        """The ids and bodies of events that are due, the earliest first."""
        sql = "SELECT id, body FROM faktory_scheduled WHERE due_at <= ? ORDER BY due_at LIMIT ?"
        return self._connection.execute(sql, (now, most)).fetchall()

    def next_due(self) -> int | None:
        (due_at,) = self._connection.execute("SELECT min(due_at) FROM faktory_scheduled").fetchone()
        return None if due_at is None else int(due_at)

    def remove_later(self, ids: Sequence[str]) -> None:
        self._connection.executemany("DELETE FROM faktory_scheduled WHERE id = ?", [(name,) for name in ids])

    # --- paused queues ---------------------------------------------------------------------------------------------

    def paused(self) -> set[str]:
        return {name for (name,) in self._connection.execute("SELECT name FROM faktory_paused")}

    def set_paused(self, names: Iterable[str]) -> None:
        self._connection.execute("DELETE FROM faktory_paused")
        self._connection.executemany("INSERT INTO faktory_paused VALUES (?)", [(name,) for name in names])

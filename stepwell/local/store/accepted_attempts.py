"""Attempts that another system has accepted: they outlive the server, which looks for their ends after a restart.

Rows are collected and written with the next batch, like logs.
"""

from __future__ import annotations

import sqlite3

from stepwell.platform import AttemptId


class AcceptedAttempts:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._all = set(connection.execute("SELECT run_id, step, attempt FROM accepted_attempts"))
        self._added: set[AttemptId] = set()
        self._removed: set[AttemptId] = set()

    def __bool__(self) -> bool:
        """Whether rows are collected that are not written yet."""
        return bool(self._added or self._removed)

    def __contains__(self, attempt: AttemptId) -> bool:
        return attempt in self._all

    def add(self, attempt: AttemptId) -> None:
        self._all.add(attempt)
        self._added.add(attempt)

    def remove(self, attempt: AttemptId) -> None:
        """Removes an attempt, because it has ended. Harmless if it was never accepted."""
        if attempt in self._all:
            self._all.discard(attempt)
            self._removed.add(attempt)

    def keep(self, attempts: set[AttemptId]) -> None:
        """Removes all attempts except these."""
        for attempt in self._all - attempts:
            self.remove(attempt)

    def write(self) -> None:
        if self._added:
            self._connection.executemany("INSERT OR IGNORE INTO accepted_attempts VALUES (?, ?, ?)", self._added)
        if self._removed:
            sql = "DELETE FROM accepted_attempts WHERE run_id = ? AND step = ? AND attempt = ?"
            self._connection.executemany(sql, self._removed)

    def clear(self) -> None:
        """Forgets the collected rows: they are durable now."""
        self._added.clear()
        self._removed.clear()

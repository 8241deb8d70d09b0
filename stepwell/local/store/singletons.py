"""The runs that hold the keys of `singleton`, in SQLite: one row for each key, written in the batch's transaction.

A row is deleted with its run.
"""

from __future__ import annotations

import sqlite3

from stepwell.core.plan import Plan
from stepwell.start_checks import Holder


class LocalSingletons:
    """Implements `start_checks.Singletons`."""

    write_ms = 0

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def read(self, function_id: str, key: bytes) -> Holder | None:
        sql = "SELECT run, position FROM singletons WHERE function = ? AND key = ?"
        row = self._connection.execute(sql, (function_id, key)).fetchone()
        return None if row is None else Holder(*row)

    def take(self, function_id: str, key: bytes, seen: Holder | None, new: Holder, plan: Plan) -> bool:
        sql = "INSERT OR REPLACE INTO singletons VALUES (?, ?, ?, ?)"
        self._connection.execute(sql, (function_id, key, new.run_id, new.position))
        return True  # there is one writer, and all of a batch is written or nothing

    def forget(self, function_id: str, key: bytes, run_id: str) -> None:
        """Deletes a claim, because the key belongs to an erased user."""
        sql = "DELETE FROM singletons WHERE function = ? AND key = ? AND run = ?"
        self._connection.execute(sql, (function_id, key, run_id))

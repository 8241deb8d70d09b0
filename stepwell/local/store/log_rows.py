"""Rows of attempts' logs, collected and written with the next batch, so that they need no transaction of their own."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from stepwell.local.database.log_files import new_name
from stepwell.local.store.run_cache import RunCache


class LogRows:
    def __init__(self, connection: sqlite3.Connection, cache: RunCache) -> None:
        self._connection, self._cache = connection, cache
        self._logs: list[tuple[object, ...]] = []
        self._files: list[tuple[int, int, int, str]] = []

    def __bool__(self) -> bool:
        return bool(self._logs or self._files)

    def add(self, run_id: str, step: int, attempt: int, seq: int, at: int, stream: str, text: bytes) -> None:
        """Collects a piece of an attempt's log, to be written with the next batch."""
        cached = self._cache.find(run_id)
        if cached is not None:
            self._logs.append((cached.row, step, attempt, seq, at, stream, text))

    def add_file(self, run_id: str, step: int, attempt: int) -> str | None:
        """A name for the file with the rest of an attempt's log; None if the run does not exist. The row with the name
        is written with the next batch."""
        cached = self._cache.find(run_id)
        if cached is None:
            return None
        name = new_name(cached.row, step, attempt)
        self._files.append((cached.row, step, attempt, name))
        return name

    def write(self) -> None:
        if self._logs:
            self._connection.executemany("INSERT OR IGNORE INTO logs VALUES (?, ?, ?, ?, ?, ?, ?)", self._logs)
        if self._files:
            self._connection.executemany("INSERT OR IGNORE INTO log_files VALUES (?, ?, ?, ?)", self._files)

    def clear(self) -> None:
        """Forgets the collected rows: they are durable now."""
        self._logs.clear()
        self._files.clear()

    def drop(self, rows: Sequence[int]) -> list[str]:
        """Drops collected rows of these runs (by row number). Returns the names of files that no row refers to now."""
        gone = set(rows)
        self._logs = [log for log in self._logs if log[0] not in gone]
        dropped = [file[3] for file in self._files if file[0] in gone]
        self._files = [file for file in self._files if file[0] not in gone]
        return dropped

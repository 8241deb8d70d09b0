"""The journal of a replay: a small local SQLite file with the selected events and the progress.

With it, a replay can be interrupted at any moment and continued. An event counts as sent when the server has answered;
otherwise it is sent again. The server starts each event of a replay only once.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import orjson

_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (n INTEGER PRIMARY KEY, entry BLOB NOT NULL);
"""
Json = dict[str, Any]


class NoJournal(Exception):
    """There is no journal for this replay."""


class InUse(Exception):
    """Another process has the journal open."""


def folder() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "stepwell" / "replays"


@dataclass(frozen=True, slots=True)
class Batch:
    """The next entries to send, and how many remain after them (`left`)."""

    entries: list[Json]
    left: int


class Journal:
    """Entries are added newest event first, in the order of the API's lists, and read oldest first."""

    def __init__(self, connection: sqlite3.Connection, file: Path | None) -> None:
        self._connection, self._file = connection, file
        self.is_deleted = False
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(f"BEGIN EXCLUSIVE; {_TABLES} COMMIT")
        except sqlite3.OperationalError:
            connection.close()
            raise InUse("another process is running this replay") from None

    @classmethod
    def in_memory(cls) -> Self:
        """A journal for a dry run, which leaves no file."""
        return cls(sqlite3.connect(":memory:", isolation_level=None), None)

    @classmethod
    def create(cls, replay: str, plan: Json) -> Self:
        """Creates the journal's file, readable only by the user, because it may contain events."""
        folder().mkdir(parents=True, exist_ok=True, mode=0o700)
        file = folder() / f"{replay}.db"
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        journal = cls(sqlite3.connect(file, isolation_level=None, timeout=0.2), file)
        journal._set("plan", plan)
        return journal

    @classmethod
    def open(cls, replay: str) -> Self:
        """Opens the journal of an interrupted replay. Raises NoJournal or InUse."""
        file = folder() / f"{replay}.db"
        if "/" in replay or not file.is_file():
            raise NoJournal(
                "this machine has no interrupted replay with this id; start one with `stepwell replay` without --resume"
            )
        return cls(sqlite3.connect(file, isolation_level=None, timeout=0.2), file)

    def close(self) -> None:
        self._connection.close()

    def delete(self) -> None:
        self.close()
        self.is_deleted = True
        if self._file is not None:
            self._file.unlink(missing_ok=True)

    # --- the selection ---------------------------------------------------------------------------------------------

    @property
    def plan(self) -> Json | None:
        """The plan that the journal was created with; None if the creation was interrupted."""
        plan: Json | None = self._get("plan")
        return plan

    @property
    def cursor(self) -> str | None:
        """The cursor of the next page to select from."""
        cursor: str | None = self._get("cursor")
        return cursor

    @property
    def is_chosen(self) -> bool:
        return bool(self._get("chosen"))

    def add(self, entries: Iterable[Json], cursor: str | None) -> None:
        """Adds a page of selected events. `cursor` is None after the last page."""
        self._connection.execute("BEGIN")
        rows = [(orjson.dumps(entry),) for entry in entries]
        self._connection.executemany("INSERT INTO events (entry) VALUES (?)", rows)
        self._set("cursor", cursor)
        self._set("chosen", cursor is None)
        self._connection.execute("COMMIT")

    @property
    def chosen(self) -> int:
        """The number of selected events."""
        return int(self._connection.execute("SELECT coalesce(max(n), 0) FROM events").fetchone()[0])

    def entry(self, n: int) -> Json:
        """The selected event number `n`, oldest first, counted from 0."""
        row = self._connection.execute("SELECT entry FROM events WHERE n = ?", (self.chosen - n,)).fetchone()
        found: Json = orjson.loads(row[0])
        return found

    # --- the progress ----------------------------------------------------------------------------------------------

    @property
    def left(self) -> int:
        """The number of events that are not sent yet."""
        left = self._get("left")
        return self.chosen if left is None else int(left)

    @property
    def counts(self) -> dict[str, int]:
        """The number of sent events by the status that the server answered."""
        return self._get("counts") or {}

    def batch(self, max_entries: int, max_bytes: int) -> Batch | None:
        """The next entries to send, at least one; None if all are sent."""
        rows = self._connection.execute(
            "SELECT n, entry FROM events WHERE n <= ? ORDER BY n DESC LIMIT ?", (self.left, max_entries)
        ).fetchall()
        entries: list[Json] = []
        left = 0
        for n, entry in rows:
            max_bytes -= len(entry)
            if entries and max_bytes < 0:
                break
            entries.append(orjson.loads(entry))
            left = n - 1
        return Batch(entries, left) if entries else None

    def sent(self, batch: Batch, statuses: Iterable[str]) -> None:
        """Records that a batch was sent. `statuses` are the server's answers."""
        counts = self.counts
        for status in statuses:
            counts[status] = counts.get(status, 0) + 1
        self._connection.execute("BEGIN")
        self._set("left", batch.left)
        self._set("counts", counts)
        self._connection.execute("COMMIT")

    def _get(self, name: str) -> Any:
        row = self._connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else orjson.loads(row[0])

    def _set(self, name: str, value: Any) -> None:
        self._connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, orjson.dumps(value)))

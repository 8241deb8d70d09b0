"""What a replay is to do and how far it came, in a small file of this machine: so it can be interrupted at any moment.

One rule: an event counts as sent when the server has answered. What was sent and not answered is sent again, and the
server, which knows the replay's id, starts it once.
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
    """There is no interrupted replay of this id here; `stepwell replay` without --resume begins one."""


class InUse(Exception):
    """This replay goes on in another process."""


def folder() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "stepwell" / "replays"


@dataclass(frozen=True, slots=True)
class Batch:
    """The next entries to be sent; `left`: how many there are behind them."""

    entries: list[Json]
    left: int


class Journal:
    """Entries are put down the newest event first, as lists have them, and taken out the oldest first."""

    def __init__(self, connection: sqlite3.Connection, file: Path | None) -> None:
        self._connection, self._file = connection, file
        self.is_deleted = False
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(f"BEGIN EXCLUSIVE; {_TABLES} COMMIT")
        except sqlite3.OperationalError:
            connection.close()
            raise InUse from None

    @classmethod
    def in_memory(cls) -> Self:
        """For a look that leaves nothing behind."""
        return cls(sqlite3.connect(":memory:", isolation_level=None), None)

    @classmethod
    def create(cls, replay: str, plan: Json) -> Self:
        """The file may hold events: nobody else may read it."""
        folder().mkdir(parents=True, exist_ok=True, mode=0o700)
        file = folder() / f"{replay}.db"
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        journal = cls(sqlite3.connect(file, isolation_level=None, timeout=0.2), file)
        journal._set("plan", plan)
        return journal

    @classmethod
    def open(cls, replay: str) -> Self:
        """Raises NoJournal, InUse."""
        file = folder() / f"{replay}.db"
        if "/" in replay or not file.is_file():
            raise NoJournal
        return cls(sqlite3.connect(file, isolation_level=None, timeout=0.2), file)

    def close(self) -> None:
        self._connection.close()

    def delete(self) -> None:
        self.close()
        self.is_deleted = True
        if self._file is not None:
            self._file.unlink(missing_ok=True)

    # --- what is to be done ----------------------------------------------------------------------------------------

    @property
    def plan(self) -> Json | None:
        """As it was created with; None if that was interrupted."""
        plan: Json | None = self._get("plan")
        return plan

    @property
    def cursor(self) -> str | None:
        """Where the next page of the source's list begins."""
        cursor: str | None = self._get("cursor")
        return cursor

    @property
    def is_chosen(self) -> bool:
        return bool(self._get("chosen"))

    def add(self, entries: Iterable[Json], cursor: str | None) -> None:
        """A page of the selection; `cursor` is None behind the last."""
        self._connection.execute("BEGIN")
        rows = [(orjson.dumps(entry),) for entry in entries]
        self._connection.executemany("INSERT INTO events (entry) VALUES (?)", rows)
        self._set("cursor", cursor)
        self._set("chosen", cursor is None)
        self._connection.execute("COMMIT")

    @property
    def chosen(self) -> int:
        """How many events were selected in all."""
        return int(self._connection.execute("SELECT coalesce(max(n), 0) FROM events").fetchone()[0])

    def entry(self, n: int) -> Json:
        """The event that is number `n` in order, from 0 on."""
        row = self._connection.execute("SELECT entry FROM events WHERE n = ?", (self.chosen - n,)).fetchone()
        found: Json = orjson.loads(row[0])
        return found

    # --- how far it came -------------------------------------------------------------------------------------------

    @property
    def left(self) -> int:
        """How many are still to be sent."""
        left = self._get("left")
        return self.chosen if left is None else int(left)

    @property
    def counts(self) -> dict[str, int]:
        """What the server answered so far, by status."""
        return self._get("counts") or {}

    def batch(self, most: int, most_bytes: int) -> Batch | None:
        """The next ones, some `most_bytes` of them at the most; None if all are sent."""
        rows = self._connection.execute(
            "SELECT n, entry FROM events WHERE n <= ? ORDER BY n DESC LIMIT ?", (self.left, most)
        ).fetchall()
        taken: list[Json] = []
        left = 0
        for n, entry in rows:
            most_bytes -= len(entry)
            if taken and most_bytes < 0:
                break
            taken.append(orjson.loads(entry))
            left = n - 1
        return Batch(taken, left) if taken else None

    def sent(self, batch: Batch, statuses: Iterable[str]) -> None:
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

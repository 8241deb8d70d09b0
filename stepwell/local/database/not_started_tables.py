"""Tables of triggers that events name and do not start: kept once, and referred to by each such event."""

from __future__ import annotations

import sqlite3

from stepwell.core.routing.not_started import Entries


def number_of(connection: sqlite3.Connection, entries: Entries, newest: int) -> int:
    """Under which number these entries are kept; they are if they were not. `newest`: the position of the newest event
    that may name them."""
    sql = "UPDATE trigger_tables SET newest = ? WHERE digest = ? RETURNING id"
    row = connection.execute(sql, (newest, entries.digest)).fetchone()
    if row is None:
        sql = "INSERT INTO trigger_tables (digest, content, newest) VALUES (?, ?, ?) RETURNING id"
        row = connection.execute(sql, (entries.digest, entries.content, newest)).fetchone()
    number: int = row[0]
    return number


def content_of(connection: sqlite3.Connection, number: int) -> bytes | None:
    """The entries that are kept under a number."""
    row = connection.execute("SELECT content FROM trigger_tables WHERE id = ?", (number,)).fetchone()
    return None if row is None else row[0]


def forget(connection: sqlite3.Connection) -> None:
    """Delete what no event names any more."""
    connection.execute("DELETE FROM trigger_tables WHERE newest < (SELECT min(seq) FROM events)")

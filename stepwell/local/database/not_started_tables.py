"""Triggers that events named but did not start. Events share such a table: it is stored once and referred to by id."""

from __future__ import annotations

import sqlite3

from stepwell.core.routing.not_started import Entries


def table_id(connection: sqlite3.Connection, entries: Entries, newest: int) -> int:
    """The id of these entries, which are stored if they are new. `newest` is the position of the newest event that may
    refer to them."""
    sql = "UPDATE trigger_tables SET newest = ? WHERE digest = ? RETURNING id"
    row = connection.execute(sql, (newest, entries.digest)).fetchone()
    if row is None:
        sql = "INSERT INTO trigger_tables (digest, content, newest) VALUES (?, ?, ?) RETURNING id"
        row = connection.execute(sql, (entries.digest, entries.content, newest)).fetchone()
    number: int = row[0]
    return number


def table_entries(connection: sqlite3.Connection, number: int) -> bytes | None:
    """The entries with an id; None if there are none."""
    row = connection.execute("SELECT content FROM trigger_tables WHERE id = ?", (number,)).fetchone()
    return None if row is None else row[0]


def delete_unused(connection: sqlite3.Connection) -> None:
    """Deletes entries that no event refers to."""
    connection.execute("DELETE FROM trigger_tables WHERE newest < (SELECT min(seq) FROM events)")

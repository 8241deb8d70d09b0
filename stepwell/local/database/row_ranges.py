"""Which rows belong to a time: times of rows grow with the numbers of rows, so no list needs an index of them."""

from __future__ import annotations

import sqlite3


def row_range(
    connection: sqlite3.Connection, table: str, column: str, times: tuple[int | None, int | None], before: int | None
) -> tuple[int | None, int | None]:
    """The row numbers from which on, and before which, the rows of a time are; None: no limit. `times`: from this one
    on, and before that one, in ms since the epoch. `before`: a row number that ends the range, too."""
    since, until = times
    first = None if since is None else first_row(connection, table, column, since)
    end = None if until is None else first_row(connection, table, column, until)
    return first, min((number for number in (end, before) if number is not None), default=None)


def first_row(connection: sqlite3.Connection, table: str, column: str, ms: int) -> int:
    """The number of the first row that is not older; halving, some twenty look-ups by primary key."""
    sql = f"SELECT seq, {column} FROM {table} WHERE seq >= ? ORDER BY seq LIMIT 1"
    (newest,) = connection.execute(f"SELECT coalesce(max(seq), 0) FROM {table}").fetchone()
    low, high = 0, newest + 1
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(sql, (middle,)).fetchone()
        low, high = (row[0] + 1, high) if row is not None and row[1] < ms else (low, middle)
    return int(low)

"""Maps times to ranges of row numbers. Times of rows grow with row numbers, so lists need no index by time."""

from __future__ import annotations

import sqlite3


def row_range(
    connection: sqlite3.Connection, table: str, column: str, times: tuple[int | None, int | None], before: int | None
) -> tuple[int | None, int | None]:
    """The row numbers (first, end) of the rows in a time range: `first` inclusive, `end` exclusive, None for no limit.
    `times` is (since, until) in ms since the epoch. `before` is a row number that also ends the range."""
    since, until = times
    first = None if since is None else first_row(connection, table, column, since)
    end = None if until is None else first_row(connection, table, column, until)
    return first, min((number for number in (end, before) if number is not None), default=None)


def first_row(connection: sqlite3.Connection, table: str, column: str, ms: int) -> int:
    """The number of the first row that is not older than `ms`: a binary search, about twenty primary key look-ups."""
    sql = f"SELECT seq, {column} FROM {table} WHERE seq >= ? ORDER BY seq LIMIT 1"
    (newest,) = connection.execute(f"SELECT coalesce(max(seq), 0) FROM {table}").fetchone()
    low, high = 0, newest + 1
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(sql, (middle,)).fetchone()
        low, high = (row[0] + 1, high) if row is not None and row[1] < ms else (low, middle)
    return int(low)

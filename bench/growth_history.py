"""Creates databases with a long history: the server makes some runs, which are then copied by SQL.

A copy differs from the original only in numbers, ids and times.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from server import Server

MADE = 100  # runs that the server makes; every tenth belongs to the user `hot`
_WAITING = 5  # runs that stay open
_DAY_MS = 86_400_000
# Columns that differ in a copy, by table and column: the SQL expression, with the number `n` of the copy.
_ROW = "{0} + n * (SELECT size FROM sizes WHERE name = '{1}')"
_NUMBERS: Mapping[str, Mapping[str, str]] = {
    "events": {"seq": "events"},
    "event_keys": {"event": "events"},
    "runs": {"seq": "runs", "event": "events", "after": "events"},
    "attempts": {"run": "runs"},
}
_IDS = {"events": "id", "runs": "id"}
_TIMES = {"accepted_at", "created_at", "ended_at", "queued_at", "started_at"}
_HEX = re.compile(r"[0-9a-f]{8}")


def make_history(functions: Path, database: Path, runs: int, *, days_old: float = 0.0, open_runs: bool = True) -> None:
    """Makes a database with `runs` runs of `bench-fill` that ended `days_old` days ago, and some open runs."""
    with Server(functions, "dev", database) as server:
        users = [{"id": "hot"} if n % 10 == 0 else {"id": f"user-{n}"} for n in range(MADE)]
        server.send([{"name": "bench/fill", "user": user, "data": {"id": n}} for n, user in enumerate(users)])
        server.wait_until_ended("bench-fill")
        server.wait_until_idle()
    copy_history(database, runs // MADE - 1, int(days_old * _DAY_MS))
    if open_runs:
        with Server(functions, "dev", database) as server:
            server.send([{"name": "bench/wait", "data": {"id": n}} for n in range(_WAITING)])
            server.wait_until_idle()


def copy_history(database: Path, copies: int, age_ms: int) -> None:
    """Copies all rows of a database `copies` times, and moves all of them `age_ms` into the past."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.create_function("other_id", 2, _other_id, deterministic=True)
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -400000")
        connection.execute("BEGIN")
        connection.execute("CREATE TEMP TABLE sizes (name TEXT PRIMARY KEY, size INTEGER)")
        for table in ("events", "runs"):
            connection.execute(f"INSERT INTO sizes SELECT '{table}', max(seq) FROM {table}")
        for table, numbers in _NUMBERS.items():
            _move(connection, table, age_ms)
            _copy(connection, table, numbers, copies)
        connection.execute("COMMIT")
        connection.execute("ANALYZE")


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [str(row[1]) for row in connection.execute(f"PRAGMA table_info({table})")]


def _move(connection: sqlite3.Connection, table: str, age_ms: int) -> None:
    for column in _TIMES.intersection(_columns(connection, table)):
        connection.execute(f"UPDATE {table} SET {column} = {column} - ?", (age_ms,))


def _copy(connection: sqlite3.Connection, table: str, numbers: Mapping[str, str], copies: int) -> None:
    columns = _columns(connection, table)
    values = [f'"{column}"' for column in columns]
    for i, column in enumerate(columns):
        if column in numbers:
            values[i] = _ROW.format(values[i], numbers[column])
        elif column == _IDS.get(table):
            values[i] = f"other_id({values[i]}, n)"
        elif (table, column) == ("events", "body"):
            values[i] = "CAST(replace(body, id, other_id(id, n)) AS BLOB)"
    connection.execute(f"CREATE TEMP TABLE originals AS SELECT * FROM {table}")
    # indexes grow several times as fast if rows come in the order of the index, so the copy number is the outer loop
    connection.execute(
        f"INSERT INTO {table} WITH RECURSIVE copies(n) AS"
        " (SELECT 1 WHERE ?1 > 0 UNION ALL SELECT n + 1 FROM copies WHERE n < ?1)"
        f" SELECT {', '.join(values)} FROM copies CROSS JOIN originals",
        (copies,),
    )
    connection.execute("DROP TABLE originals")


def _other_id(text: str, number: int) -> str:
    """An id of the same form: the first eight hexadecimal digits in a row are replaced, or the number is appended."""
    replaced, count = _HEX.subn(f"{number:08x}", text, count=1)
    return replaced if count else f"{text}-{number}"

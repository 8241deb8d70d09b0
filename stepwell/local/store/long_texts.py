"""Long outputs and errors of attempts, in a table of their own, `long_texts`.

A row of `attempts` is found by comparing keys, and to compare a row that fills more than a quarter of a page SQLite
reads the whole row, however long it is. A search compares a dozen rows. So rows of such tables are to be short
(https://www.sqlite.org/withoutrowid.html, 4). In `attempts` an empty text stands for the long one, which is found by a
number made of the attempt's key.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

MOST_BYTES = 900  # of a text that is kept in `attempts`
IN_ITS_PLACE = b""  # no JSON text is empty
INSERT = "INSERT OR REPLACE INTO long_texts VALUES (?, ?)"
_RUN_BITS, _STEP_BITS = 24, 8  # to the right of a run's number: of a step and an attempt; of an attempt (at most 25)
_DELETE = f"DELETE FROM long_texts WHERE place BETWEEN ? << {_RUN_BITS} AND (? + 1 << {_RUN_BITS}) - 1"


def place(run: int, step: int, attempt: int) -> int:
    """The row of an attempt's text. `run`: the run's row."""
    return run << _RUN_BITS | step << _STEP_BITS | attempt


def whole(column: str) -> str:
    """An expression of SQL for a text of `attempts`, `output` or `error`, wherever it is kept."""
    row = f"(run << {_RUN_BITS}) + (step << {_STEP_BITS}) + attempt"
    return f"CASE {column} WHEN x'' THEN (SELECT text FROM long_texts WHERE place = {row}) ELSE {column} END"


def delete_long_texts(connection: sqlite3.Connection, runs: Iterable[int]) -> None:
    """Delete those of runs, by their rows."""
    connection.executemany(_DELETE, [(run, run) for run in runs])

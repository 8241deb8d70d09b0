"""Long outputs and errors of attempts, in a table of their own, `long_texts`.

SQLite finds a row of `attempts` by comparing keys, about a dozen for each search. To compare a row that fills more than
a quarter of a page, it reads the whole row. So rows of such tables should be short
(https://www.sqlite.org/withoutrowid.html, section 4). In `attempts` an empty text stands for a long one; the long text
has a row number made from the attempt's key.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

MOST_BYTES = 900  # of a text that is stored in `attempts`
PLACEHOLDER = b""  # no JSON text is empty
INSERT = "INSERT OR REPLACE INTO long_texts VALUES (?, ?)"
_RUN_BITS, _STEP_BITS = 24, 8  # to the right of a run's number, and of a step's (attempts: at most 25)
_DELETE = f"DELETE FROM long_texts WHERE place BETWEEN ? << {_RUN_BITS} AND (? + 1 << {_RUN_BITS}) - 1"


def place(run: int, step: int, attempt: int) -> int:
    """The row number of an attempt's long text. `run` is the run's row number."""
    return run << _RUN_BITS | step << _STEP_BITS | attempt


def whole(column: str) -> str:
    """An SQL expression for the full text of a column of `attempts`, `output` or `error`, wherever it is stored."""
    row = f"(run << {_RUN_BITS}) + (step << {_STEP_BITS}) + attempt"
    return f"CASE {column} WHEN x'' THEN (SELECT text FROM long_texts WHERE place = {row}) ELSE {column} END"


def delete_long_texts(connection: sqlite3.Connection, runs: Iterable[int]) -> None:
    """Deletes the long texts of runs, given by row number."""
    connection.executemany(_DELETE, [(run, run) for run in runs])

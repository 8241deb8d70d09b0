"""The stored state of a run: one column, or, for a long run that is open, parts in rows of their own.

A transition of a long run changes a few steps, and only the parts that contain them are written. A state in one column
would be rewritten as a whole each time. When a long run ends, the state is written as one column again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator

from stepwell.core.run.run import Part, Run, pack, unpack


def read_run(connection: sqlite3.Connection, seq: int, run_id: str, state: bytes) -> Run:
    """The run of a row, whose column `state` contains `state`."""
    return unpack(run_id, state, _read_parts(connection, seq))


def _read_parts(connection: sqlite3.Connection, seq: int) -> Iterator[Part]:
    """The parts of a run's state. Only evaluated if the state is in parts."""
    yield from connection.execute("SELECT part, states FROM run_parts WHERE run = ?", (seq,))


def write_parts(connection: sqlite3.Connection, parts: Iterable[tuple[int, int, bytes]]) -> None:
    """Writes parts, each as (the run's row number, part number, states)."""
    connection.executemany("INSERT OR REPLACE INTO run_parts VALUES (?, ?, ?)", parts)


def drop_parts(connection: sqlite3.Connection, runs: Iterable[int]) -> None:
    """Deletes the parts of runs whose state is in one column now."""
    connection.executemany("DELETE FROM run_parts WHERE run = ?", [(seq,) for seq in runs])


def write_whole(connection: sqlite3.Connection, runs: dict[int, Run]) -> None:
    """Writes the states of these runs, by row number, as one column each."""
    connection.executemany("UPDATE runs SET state = ? WHERE seq = ?", [(pack(run), seq) for seq, run in runs.items()])
    drop_parts(connection, runs)

"""The states of runs in the database: in one piece, or, while a long run is open, in parts in rows of their own.

A transition of a long run changes some of its steps, and writes the parts that hold these. A row in one piece would be
written as a whole each time. A run that has ended is in one piece again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator

from stepwell.core.run.run import Part, Run, pack, unpack


def read_run(connection: sqlite3.Connection, seq: int, run_id: str, state: bytes) -> Run:
    """The run of this row, whose column `state` says this."""
    return unpack(run_id, state, _read_parts(connection, seq))


def _read_parts(connection: sqlite3.Connection, seq: int) -> Iterator[Part]:
    """Asked for only if the state is in parts."""
    yield from connection.execute("SELECT part, states FROM run_parts WHERE run = ?", (seq,))


def write_parts(connection: sqlite3.Connection, parts: Iterable[tuple[int, int, bytes]]) -> None:
    """Each with the row of its run."""
    connection.executemany("INSERT OR REPLACE INTO run_parts VALUES (?, ?, ?)", parts)


def drop_parts(connection: sqlite3.Connection, runs: Iterable[int]) -> None:
    """Those of runs whose rows hold them in one piece now."""
    connection.executemany("DELETE FROM run_parts WHERE run = ?", [(seq,) for seq in runs])


def write_whole(connection: sqlite3.Connection, runs: dict[int, Run]) -> None:
    """Write these runs, by row, in one piece each."""
    connection.executemany("UPDATE runs SET state = ? WHERE seq = ?", [(pack(run), seq) for seq, run in runs.items()])
    drop_parts(connection, runs)

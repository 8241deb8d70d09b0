"""Rows of limits in SQLite: the state of throttles, and which starts wait for which limit, for those who read it.

What waits follows from stored runs, so the rows about it are only read by others. They are written anew when the server
starts, and after a rollback.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import NamedTuple

from stepwell.platform import AttemptId
from stepwell.reader import WaitingFor

BucketKey = tuple[str, bytes]  # the id of the limit, the key


class ThrottleState(NamedTuple):
    """The state of one key of a throttle: the time from which it has no effect, in ms since the epoch, and the interval
    of the rate with which that was computed."""

    theoretical: float = 0.0
    interval_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class WaitRow:
    """A start that waits in a lane since a time (ms since the epoch). The lowest rank, then order, comes first."""

    id: AttemptId
    lane: int
    rank: int
    order: int
    since: int


@dataclass(frozen=True, slots=True)
class LaneRow:
    """A lane, and the key of the limit in which it waits. `text`: the key's value as JSON."""

    number: int
    bucket: BucketKey
    text: str


class LimitRows:
    """Collects changes, and writes them with the batch."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._is_fresh = True  # whether rows of an earlier process or batch must be deleted first
        self._waits: dict[AttemptId, WaitRow | None] = {}  # None: waits no more
        self._lanes: dict[int, LaneRow | None] = {}  # None: empty
        self._throttles: dict[BucketKey, ThrottleState] = {}

    # --- throttles -------------------------------------------------------------------------------------------------

    def throttle(self, key: BucketKey) -> ThrottleState:
        """The state of a throttle; an unused one if none is stored."""
        if key in self._throttles:
            return self._throttles[key]
        sql = "SELECT theoretical, interval_ms FROM throttles WHERE limit_id = ? AND key = ?"
        row = self._connection.execute(sql, key).fetchone()
        return ThrottleState(*row) if row else ThrottleState()

    def set_throttle(self, key: BucketKey, state: ThrottleState) -> None:
        self._throttles[key] = state

    # --- what waits ------------------------------------------------------------------------------------------------

    def wait(self, row: WaitRow) -> None:
        self._waits[row.id] = row

    def wait_no_more(self, item_id: AttemptId) -> None:
        self._waits[item_id] = None

    def move(self, row: LaneRow) -> None:
        self._lanes[row.number] = row

    def close(self, lane: int) -> None:
        """The lane is empty."""
        self._lanes[lane] = None

    # --- the batch -------------------------------------------------------------------------------------------------

    def write(self) -> None:
        """Writes the collected changes within the batch's transaction."""
        if self._is_fresh:  # also if nothing waits any more
            self._connection.execute("DELETE FROM limit_waits")
            self._connection.execute("DELETE FROM limit_lanes")
            self._is_fresh = False
        if self._waits or self._lanes:
            self._write_waits()
            self._write_lanes()
        if self._throttles:
            rows = [(*key, *state) for key, state in self._throttles.items()]
            self._connection.executemany("INSERT OR REPLACE INTO throttles VALUES (?, ?, ?, ?)", rows)

    def _write_waits(self) -> None:
        gone = [(run_id, step) for (run_id, step, _), row in self._waits.items() if row is None]
        self._connection.executemany("DELETE FROM limit_waits WHERE run_id = ? AND step = ?", gone)
        new = [
            (*row.id[:2], row.lane, row.rank, row.order, row.since) for row in self._waits.values() if row is not None
        ]
        self._connection.executemany("INSERT OR REPLACE INTO limit_waits VALUES (?, ?, ?, ?, ?, ?)", new)

    def _write_lanes(self) -> None:
        empty = [(number,) for number, row in self._lanes.items() if row is None]
        self._connection.executemany("DELETE FROM limit_lanes WHERE lane = ?", empty)
        moved = [(row.number, *row.bucket, row.text) for row in self._lanes.values() if row is not None]
        self._connection.executemany("INSERT OR REPLACE INTO limit_lanes VALUES (?, ?, ?, ?)", moved)

    def clear(self) -> None:
        """The batch is committed."""
        for written in (self._waits, self._lanes, self._throttles):
            written.clear()

    def reset(self) -> None:
        """The batch was rolled back: what waits is collected anew."""
        self.clear()
        self._is_fresh = True


def delete_over(connection: sqlite3.Connection, now: int, most: int) -> bool:
    """Deletes at most `most` throttles that have no effect any more. Returns whether there may be more."""
    deleted = connection.execute(
        "DELETE FROM throttles WHERE (limit_id, key) IN"
        " (SELECT limit_id, key FROM throttles WHERE theoretical <= ? LIMIT ?)",
        (now, most),
    )
    return deleted.rowcount == most


def waiting_for(connection: sqlite3.Connection, run_id: str) -> dict[int, WaitingFor]:
    """What a run and its steps wait for, by step."""
    sql = (
        "SELECT w.step, l.limit_id, l.text, w.since,"
        " (SELECT count(*) FROM limit_waits o WHERE o.lane = w.lane AND (o.rank, o.run_order) < (w.rank, w.run_order))"
        " FROM limit_waits w JOIN limit_lanes l ON l.lane = w.lane WHERE w.run_id = ?"
    )
    rows = connection.execute(sql, (run_id,)).fetchall()
    return {step: WaitingFor(limit_id, text, ahead, since) for step, limit_id, text, since, ahead in rows}

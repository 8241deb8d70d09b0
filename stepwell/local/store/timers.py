"""Timers of runs in SQLite: set and cleared within a batch, and removed when they are due."""

from __future__ import annotations

import sqlite3

from stepwell.core.run.messages import Timer, TimerKind

_AT_ONCE = 500  # due timers in one batch; the next batch takes more


class Timers:
    """Sets, clears and takes timers. `changed` is true if `next_due` may return another time than before."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.changed = True

    def set(self, run_seq: int, timer: Timer, due_at: int) -> None:
        row = (run_seq, timer.kind, timer.index, timer.attempt, due_at)
        self._connection.execute("INSERT OR REPLACE INTO timers VALUES (?, ?, ?, ?, ?)", row)
        self.changed = True

    def clear(self, run_seq: int, timer: Timer) -> None:
        sql = "DELETE FROM timers WHERE run = ? AND kind = ? AND step_or_pause = ? AND attempt = ?"
        self._connection.execute(sql, (run_seq, timer.kind, timer.index, timer.attempt))
        self.changed = True

    def take_due(self, now: int) -> list[tuple[str, Timer]]:
        """Removes due timers and returns each with the run's id, earliest first."""
        rows = self._connection.execute(
            "SELECT runs.id, run, kind, step_or_pause, attempt FROM timers CROSS JOIN runs ON runs.seq = timers.run"
            " WHERE due_at <= ? ORDER BY due_at LIMIT ?",
            (now, _AT_ONCE),
        ).fetchall()
        sql = "DELETE FROM timers WHERE run = ? AND kind = ? AND step_or_pause = ? AND attempt = ?"
        self._connection.executemany(sql, [row[1:] for row in rows])
        self.changed = True
        return [(run_id, Timer(TimerKind(kind), index, attempt)) for run_id, _, kind, index, attempt in rows]

    def next_due(self) -> int | None:
        """When the next timer, cron tick or canary check is due, in ms since the epoch."""
        self.changed = False
        sql = (
            "SELECT min(due) FROM (SELECT min(due_at) AS due FROM timers UNION ALL SELECT min(next_at) FROM schedules"
            " WHERE paused = 0 UNION ALL SELECT min(next_at) FROM guards)"
        )
        due: int | None = self._connection.execute(sql).fetchone()[0]
        return due

"""Rows of runs and attempts: a batch's changes are collected and written in a few statements."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from stepwell.core.events.events import user_key
from stepwell.core.run.inputs import error_json
from stepwell.core.run.messages import RecordAttempt
from stepwell.core.run.run import Packer, Run, RunStatus, Steps, has_begun, pack, steps_of
from stepwell.local.store import long_texts
from stepwell.local.store.run_cache import CachedRun
from stepwell.local.store.run_parts import drop_parts, write_parts

_INSERT_RUN = (
    'INSERT INTO runs (seq, id, function, version, event, user, "after", rerun_of, status, active, created_at,'
    " ended_at, state, replay) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_UPDATE_STATE = "UPDATE runs SET state = ? WHERE seq = ?"
_UPDATE_RUN = "UPDATE runs SET status = ?, active = ?, ended_at = ?, state = ? WHERE seq = ?"
_INSERT_ATTEMPT = (
    "INSERT OR REPLACE INTO attempts (run, step, attempt, status, queued_at, started_at, ended_at, output, error, user)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class RunRows:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._dirty: list[CachedRun] = []
        self._inactive: list[CachedRun] = []
        self._attempts: list[tuple[object, ...]] = []
        self._long_texts: list[tuple[int, bytes]] = []
        self._parts: list[tuple[int, int, bytes]] = []  # of long runs: row number, part number, states
        self._whole: list[int] = []  # row numbers of long runs that have ended

    def change(self, cached: CachedRun) -> None:
        """Marks a run's row to be written."""
        if not cached.is_dirty:
            cached.is_dirty = True
            self._dirty.append(cached)

    def record(self, cached: CachedRun, command: RecordAttempt) -> int:
        """Collects an attempt's row to be written. Returns the size of the output or error in bytes."""
        output, error = command.output, None if command.error is None else error_json(command.error)
        size = len(output or error or b"")  # an attempt has one of the two
        if size > long_texts.MOST_BYTES:
            place = long_texts.place(cached.row, command.step, command.attempt)
            self._long_texts.append((place, output or error or b""))
            output, error = output and long_texts.PLACEHOLDER, error and long_texts.PLACEHOLDER
        self._attempts.append(
            (cached.row, command.step, command.attempt, command.status, command.queued_at, command.started_at,
             command.ended_at, output, error, user_key(cached.record.event.user))
        )  # fmt: skip
        return size

    def write(self) -> None:
        """Writes all collected rows."""
        if self._dirty:
            self._write_runs()
        if self._parts:
            write_parts(self._connection, self._parts)
            self._parts.clear()
        if self._whole:
            drop_parts(self._connection, self._whole)
            self._whole.clear()
        if self._attempts:
            self._connection.executemany(_INSERT_ATTEMPT, self._attempts)
            self._attempts.clear()
        if self._long_texts:
            self._connection.executemany(long_texts.INSERT, self._long_texts)
            self._long_texts.clear()

    def _write_runs(self) -> None:
        new, moved, changed = [], [], []
        for cached in self._dirty:
            record, run = cached.record, cached.record.run
            state = self._long_state(cached) if cached.is_long else pack(run)
            is_busy = _is_busy(run, record.plan.approval_bits)
            if cached.is_new:
                plan = record.plan
                new.append(
                    (cached.row, run.id, plan.function_id, plan.version, record.event.position,
                     user_key(record.event.user), record.after, record.rerun_of, int(run.status), is_busy,
                     run.created_at, run.ended_at, state, record.replay)
                )  # fmt: skip
            elif is_busy != cached.is_busy or run.ended_at is not None:
                moved.append((int(run.status), is_busy, run.ended_at, state, cached.row))
            else:  # most updates leave the indexed columns alone
                changed.append((state, cached.row))
            cached.is_busy = is_busy
            cached.is_new = cached.is_dirty = False
            if not is_busy:
                self._inactive.append(cached)
        self._dirty.clear()
        if new:
            self._connection.executemany(_INSERT_RUN, new)
        if changed:
            self._connection.executemany(_UPDATE_STATE, changed)
        if moved:
            self._connection.executemany(_UPDATE_RUN, moved)

    def _long_state(self, cached: CachedRun) -> bytes:
        """The column `state` of a long run. While the run is open, parts of the state are rows of their own."""
        run = cached.record.run
        if run.ended_at is not None:
            self._whole.append(cached.row)
            return pack(run)
        if cached.packer is None:
            cached.packer = Packer(run)
        state, parts = cached.packer.pack(run)
        self._parts += [(cached.row, *part) for part in parts]
        return state

    def take_inactive(self) -> Sequence[CachedRun]:
        """The runs written since the last call that had no queued or running attempt."""
        resting, self._inactive = self._inactive, []
        return resting

    def drop_all(self) -> None:
        """Forgets all collected rows without writing them."""
        for collected in (self._dirty, self._inactive, self._attempts, self._long_texts, self._parts, self._whole):
            collected.clear()


def _is_busy(run: Run, approvals: int) -> bool:
    """Whether the server must load the run when it starts: the run has not begun, or has queued or running attempts.
    Attempts of approval steps do not count, since they only wait for a decision."""
    steps = run.steps if isinstance(run.steps, Steps) else steps_of(run)
    if steps.busy & ~approvals:
        return True
    return run.status is RunStatus.RUNNING and not has_begun(run)

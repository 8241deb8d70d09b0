"""Runs in memory: those with attempts that are queued or running. Cached runs are never stale, since a single writer
owns the database."""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from stepwell.core.events.events import Event
from stepwell.core.plan import Plan
from stepwell.core.run.run import Packer, StepStatus
from stepwell.local.store import long_texts
from stepwell.local.store.run_parts import read_run
from stepwell.platform import DamagedRun, RunRecord

_LONG = 128  # steps; a shorter run's state fits into a database page and is written in one piece
_MOST_RUNS = 10_000  # in memory, and the bytes of their outputs and errors
_MOST_BYTES = 64 * 1024 * 1024
_RUN = (
    'SELECT runs.seq, function, version, "after", rerun_of, runs.replay, state, events.seq, body'
    " FROM runs JOIN events ON events.seq = runs.event WHERE runs.id = ?"
)
_RESULTS = (
    f"SELECT step, {long_texts.whole('output')}, {long_texts.whole('error')} FROM attempts WHERE run = ?"
    " ORDER BY step, attempt"
)


@dataclass(slots=True)
class CachedRun:
    """A run in memory. `row` is the row number; `is_new` and `is_dirty` control how it is written."""

    record: RunRecord
    row: int
    is_new: bool = False
    is_dirty: bool = False
    is_busy: bool | None = None  # as stored in the row; None: not known
    size: int = 0  # bytes of outputs and errors
    packer: Packer | None = None
    is_long: bool = field(init=False)

    def __post_init__(self) -> None:
        self.is_long = len(self.record.plan.steps) >= _LONG


class RunCache:
    """Loads and caches runs. `plan` returns the plan of a function's version."""

    def __init__(self, connection: sqlite3.Connection, plan: Callable[[str, int], Plan]) -> None:
        self._connection, self._plan = connection, plan
        self._runs: OrderedDict[str, CachedRun] = OrderedDict()
        self._bytes = 0

    def load(self, run_ids: Iterable[str]) -> dict[str, RunRecord]:
        """Records by id; unknown runs are left out."""
        records = {}
        runs = self._runs
        for run_id in run_ids:
            cached = runs.get(run_id)
            if cached is None and (cached := self.find(run_id)) is None:
                continue
            runs.move_to_end(run_id)
            records[run_id] = cached.record
        return records

    def find(self, run_id: str) -> CachedRun | None:
        """The run from memory or from the database; None if it does not exist. Raises DamagedRun."""
        cached = self._runs.get(run_id)
        if cached is not None:
            return cached
        try:
            return self._read(run_id)
        except sqlite3.Error:
            raise
        except Exception as error:
            raise DamagedRun(f"the stored state of run {run_id} cannot be read: {error}") from error

    def add(self, cached: CachedRun) -> None:
        self._runs[cached.record.run.id] = cached

    def grow(self, cached: CachedRun, size: int) -> None:
        """Counts the bytes of an output or error that stays in memory with a run."""
        cached.size += size
        self._bytes += size

    def _read(self, run_id: str) -> CachedRun | None:
        row = self._connection.execute(_RUN, (run_id,)).fetchone()
        if row is None:
            return None
        number, function, version, after, rerun_of, replay, state, position, body = row
        run = read_run(self._connection, number, run_id, state)
        outputs: dict[int, bytes] = {}
        errors: dict[int, bytes] = {}
        for step, output, error in self._connection.execute(_RESULTS, (number,)):
            if run.steps[step].status is StepStatus.COMPLETED and output is not None:
                outputs[step] = output
            elif run.steps[step].status is StepStatus.FAILED and error is not None:
                errors[step] = error
        plan, event = self._plan(function, version), Event.stored(position, body)
        record = RunRecord(run, plan, event, after, rerun_of, replay, number, outputs, errors)
        cached = self._runs[run_id] = CachedRun(record, number)
        self.grow(cached, sum(map(len, outputs.values())) + sum(map(len, errors.values())))
        return cached

    def drop(self, run_id: str) -> None:
        cached = self._runs.pop(run_id, None)
        self._bytes -= 0 if cached is None else cached.size

    def drop_all(self) -> None:
        self._runs.clear()
        self._bytes = 0

    def evict(self, resting: Sequence[CachedRun]) -> None:
        """Drops runs without queued or running attempts, which have ended or wait for a time or an event.

        Then drops the least recently used runs while the cache is too large."""
        for cached in resting:
            if not cached.is_busy:
                self.drop(cached.record.run.id)
        while len(self._runs) > _MOST_RUNS or (self._bytes > _MOST_BYTES and self._runs):
            _, cached = self._runs.popitem(last=False)
            self._bytes -= cached.size

"""One batch of the engine is one SQLite transaction, which ends with `flush` or `rollback`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from stepwell.core.events.events import Event
from stepwell.core.routing.triggers import Catalog
from stepwell.core.run.messages import (
    AttemptEnded,
    ClearTimer,
    CloseWait,
    Command,
    EmitEnd,
    OpenWait,
    RecordAttempt,
    RunStep,
    SetTimer,
    Timer,
)
from stepwell.local.store.clock_steps import move_back
from stepwell.local.store.run_cache import CachedRun
from stepwell.local.store.start_checks import LocalStartChecks
from stepwell.platform import Accepted, FoundWaits, NewEvent, NotWritten, RunRecord, Transition, WaitPlace

if TYPE_CHECKING:
    from stepwell.local.store.store import LocalStore


_NOT_STORED = (RunStep, EmitEnd)  # these follow from the run's state


class LocalBatch:
    """Implements `platform.Batch`.

    Changed runs are collected, and written once: at the end, or earlier when a query needs them.
    """

    most_events: int | None = None

    def __init__(self, store: LocalStore, now: int) -> None:
        self.now, self._store = now, store
        store.connection.execute("BEGIN IMMEDIATE")

    @property
    def checks(self) -> LocalStartChecks:
        return self._store.checks

    # --- the transaction -------------------------------------------------------------------------------------------

    def write(self) -> None:
        """Writes the collected changes to the transaction, so that the commit has little left to do."""
        self._store.write()

    def flush(self) -> None:
        """Writes the collected changes and commits. The batch is durable when this returns."""
        self._store.write()
        self._store.logs.write()
        self._store.accepted.write()
        self._store.limit_rows.write()
        self._store.connection.execute("COMMIT")
        self._store.logs.clear()
        self._store.accepted.clear()
        self._store.limit_rows.clear()
        self._store.cache.evict(self._store.runs.take_inactive())

    def rollback(self) -> None:
        """Rolls the transaction back, and reloads from the file what is held in memory."""
        self._store.reset()

    def move_back(self, by_ms: int) -> Iterator[None]:
        """Corrects stored times after the clock was set back by `by_ms`. Must be the first step of a batch.

        Yields after each piece of work, so that requests can be answered in between.
        """
        store = self._store
        store.forget_runs()
        yield from move_back(store.connection, store.functions.plan, by_ms, self.now)
        store.timers.changed = True

    # --- events ----------------------------------------------------------------------------------------------------

    def catalog(self) -> Catalog:
        return self._store.catalog()

    def position(self) -> int:
        return self._store.events.newest

    def put_events(self, events: Sequence[NewEvent]) -> list[Accepted | NotWritten | None]:
        return self._store.events.put(events, self.now)

    def hold(self, function_id: str, event: Event) -> bool:
        self._store.functions.hold(function_id, event.position)
        return True

    def events(self, ids: Sequence[str]) -> dict[str, Event]:
        return self._store.events.read(ids)

    def continue_scan(self, run_id: str, pause: int, after: int) -> None:
        """Does nothing: within a local batch the engine continues the scan itself."""

    def find_events(self, name: str, key: bytes | None, after: int, before: int) -> Iterator[Event]:
        return self._store.events.find(name, key, after, before)

    def find_waits(self, event: Event, keys: Sequence[bytes], behind: WaitPlace | None = None) -> FoundWaits:
        self._store.write()  # runs of this batch have waits too
        return self._store.waits.find(event, keys, behind)

    # --- runs ------------------------------------------------------------------------------------------------------

    def load(self, run_ids: Iterable[str]) -> dict[str, RunRecord]:
        return self._store.cache.load(run_ids)

    def pending_outcomes(self, record: RunRecord) -> Sequence[AttemptEnded]:
        return ()  # there are none: every transition is written with the batch

    def add(self, record: RunRecord) -> None:
        self._store.add(record)

    def commit(self, transitions: Sequence[Transition]) -> Sequence[RunRecord | NotWritten | None]:
        cache, runs = self._store.cache, self._store.runs
        for transition in transitions:
            record = transition.record
            cached = cache.find(record.run.id)
            assert cached is not None
            cached.record = record
            if cached.is_new or record.run is not transition.before.run:
                runs.change(cached)
            for command in transition.commands:
                if isinstance(command, RecordAttempt):
                    cache.grow(cached, runs.record(cached, command))
                elif not isinstance(command, _NOT_STORED):
                    self._apply(cached, command)
        return [None] * len(transitions)  # with a single writer no commit conflicts

    def set_timer(self, run_id: str, timer: Timer, due_at: int) -> None:
        """Sets a timer of a run, even if the run's record cannot be read."""
        sql = "INSERT OR REPLACE INTO timers SELECT seq, ?, ?, ?, ? FROM runs WHERE id = ?"
        row = (timer.kind, timer.index, timer.attempt, due_at, run_id)
        self._store.connection.execute(sql, row)
        self._store.timers.changed = True

    def _apply(self, cached: CachedRun, command: Command) -> None:
        store, row = self._store, cached.row
        if isinstance(command, SetTimer):
            store.timers.set(row, command.timer, command.due_at)
        elif isinstance(command, ClearTimer):
            store.timers.clear(row, command.timer)
        elif isinstance(command, OpenWait):
            store.waits.open(row, cached.record, command)
        elif isinstance(command, CloseWait):
            store.waits.close(row, cached.record, command.pause)

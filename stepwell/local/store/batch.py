"""One batch of the engine as one transaction of SQLite: begun with the batch, until `flush` or `rollback`."""

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
from stepwell.platform import Accepted, FoundWaits, Idempotency, NewEvent, NotWritten, RunRecord, Transition, WaitPlace

if TYPE_CHECKING:
    from stepwell.local.store.store import LocalStore


_NOT_STORED = (RunStep, EmitEnd)  # the run's state says as much


class LocalBatch:
    """Implements `platform.Batch`. What it changes of runs is written at the end, or when somebody asks for what it is
    part of; each run once."""

    most_events: int | None = None

    def __init__(self, store: LocalStore, now: int) -> None:
        self.now, self._store = now, store
        store.connection.execute("BEGIN IMMEDIATE")

    @property
    def idempotency(self) -> Idempotency:
        return self._store.idempotency

    # --- the transaction -------------------------------------------------------------------------------------------

    def write(self) -> None:
        """Write what the batch changed, so that little is left to do at its end."""
        self._store.write()

    def flush(self) -> None:
        """Write what the batch changed, and commit: durable when this returns."""
        self._store.write()
        self._store.logs.write()
        self._store.connection.execute("COMMIT")
        self._store.logs.written()
        self._store.cache.evict(self._store.runs.take_resting())

    def rollback(self) -> None:
        """Forget the batch; memory goes back to what the file says."""
        self._store.reset()

    def move_back(self, by_ms: int) -> Iterator[None]:
        """The clock was set back to `now`: at the beginning of a batch, move what it had set while it was ahead, a
        piece at a time."""
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
        self._store.functions.keep(function_id, event.position)
        return True

    def events(self, ids: Sequence[str]) -> dict[str, Event]:
        return self._store.events.read(ids)

    def continue_scan(self, run_id: str, pause: int, after: int) -> None:
        """Nobody asks for it: within a batch the engine goes on by itself."""

    def find_events(self, name: str, key: bytes | None, after: int, before: int) -> Iterator[Event]:
        return self._store.events.find(name, key, after, before)

    def find_waits(self, event: Event, keys: Sequence[bytes], behind: WaitPlace | None = None) -> FoundWaits:
        self._store.write()  # runs of this very batch have waits too
        return self._store.waits.find(event, keys, behind)

    # --- runs ------------------------------------------------------------------------------------------------------

    def load(self, run_ids: Iterable[str]) -> dict[str, RunRecord]:
        return self._store.cache.load(run_ids)

    def pending_outcomes(self, record: RunRecord) -> Sequence[AttemptEnded]:
        return ()  # every transition is written at once

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
                    self._obey(cached, command)
        return [None] * len(transitions)  # a single writer never loses a race

    def set_timer(self, run_id: str, timer: Timer, due_at: int) -> None:
        """Set a timer of a run whose record may not be readable."""
        sql = "INSERT OR REPLACE INTO timers SELECT seq, ?, ?, ?, ? FROM runs WHERE id = ?"
        row = (timer.kind, timer.index, timer.attempt, due_at, run_id)
        self._store.connection.execute(sql, row)
        self._store.timers.changed = True

    def _obey(self, cached: CachedRun, command: Command) -> None:
        store, row = self._store, cached.row
        if isinstance(command, SetTimer):
            store.timers.set(row, command.timer, command.due_at)
        elif isinstance(command, ClearTimer):
            store.timers.clear(row, command.timer)
        elif isinstance(command, OpenWait):
            store.waits.open(row, cached.record, command)
        elif isinstance(command, CloseWait):
            store.waits.close(row, cached.record, command.pause)

"""The engine's store in SQLite: state and queue in one transaction, which is one batch of the engine.

A single writer owns it: the runs it works on stay in memory, and each is written once per batch, at the commit.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from stepwell.core.events.events import Event, next_event_id, user_key
from stepwell.core.routing.not_started import NO_MISSES, Entries, misses_json
from stepwell.core.routing.triggers import Catalog
from stepwell.core.run.inputs import error_json
from stepwell.core.run.invalid_events import MOST_SHOWN
from stepwell.core.run.messages import (
    AttemptEnded,
    ClearTimer,
    CloseWait,
    Command,
    OpenWait,
    RecordAttempt,
    RunStep,
    SetTimer,
)
from stepwell.core.run.run import Packer, StepStatus, bits_of, pack
from stepwell.local.database import long_texts
from stepwell.local.database.clock_steps import move_back
from stepwell.local.database.event_types import TypeStore
from stepwell.local.database.functions import Functions
from stepwell.local.database.idempotency import LocalIdempotency
from stepwell.local.database.log_files import new_name
from stepwell.local.database.not_started_tables import number_of
from stepwell.local.database.open_waits import OpenWaits
from stepwell.local.database.run_parts import drop_parts, read_run, write_parts
from stepwell.local.database.schema import connect, forget_statistics, migrate
from stepwell.local.database.timers import Timers
from stepwell.local.database.unrouted import Unrouted
from stepwell.local.database.users import UserIndex
from stepwell.platform import Accepted, Change, FoundWaits, NewEvent, NotWritten, RunRecord, WaitPlace

_KEPT_RUNS = 10_000  # runs kept in memory, and the bytes of their events and outputs
_LONG = 128  # steps; the state of a shorter run fits into a page of the database, and is written in one piece
_KEPT_BYTES = 64 * 1024 * 1024
_INSERT_EVENT = (
    "INSERT OR IGNORE INTO events (seq, id, name, user, accepted_at, body, misses, replay, invalid)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_RUN = (
    'INSERT INTO runs (seq, id, function, version, event, user, "after", rerun_of, status, active, created_at,'
    " ended_at, state, replay) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_ATTEMPT = (
    "INSERT OR REPLACE INTO attempts (run, step, attempt, status, queued_at, started_at, ended_at, output, error, user)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_RESULTS = (
    f"SELECT step, {long_texts.whole('output')}, {long_texts.whole('error')} FROM attempts WHERE run = ?"
    " ORDER BY step, attempt"
)


@dataclass(slots=True)
class _Kept:
    """A run in memory. `seq` is its row; `new` and `dirty` say what the commit has to write."""

    record: RunRecord
    seq: int
    new: bool = False
    dirty: bool = False
    busy: bool | None = None  # as the row says; None: not known
    size: int = 0  # bytes of its outputs and errors
    packer: Packer | None = None

    @property
    def is_long(self) -> bool:
        return len(self.record.plan.steps) >= _LONG


class LocalStore:
    """Implements `platform.Store`; besides, the batch's transaction: `begin`, then `flush` or `rollback`."""

    looks_at: int | None = None

    def __init__(self, path: Path | str, *, durable: bool = False) -> None:
        self.path, self.durable = Path(path), durable
        self.connection = connect(path, durable=durable)
        migrate(self.connection)
        forget_statistics(self.connection)
        self.functions = Functions(self.connection)
        self.timers = Timers(self.connection)
        self.types = TypeStore(self.connection)
        self.people = UserIndex(self.connection)
        self.idempotency = LocalIdempotency(self.connection)
        self.waits = OpenWaits(self.connection, lambda *version: self.functions.plan(*version))
        self.unrouted = Unrouted(self.connection, self.catalog)
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._kept_bytes = 0
        self._dirty: list[_Kept] = []
        self._resting: list[_Kept] = []
        self._attempts: list[tuple[object, ...]] = []
        self._long_texts: list[tuple[int, bytes]] = []
        self._parts: list[tuple[int, int, bytes]] = []  # of long runs: row, number, states
        self._whole: list[int] = []  # rows of long runs that have ended
        self._logs: list[tuple[object, ...]] = []
        self._log_files: list[tuple[int, int, int, str]] = []
        self._event_seq = self._newest("events")
        self._run_seq = self._newest("runs")

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # it must close when nothing can be written, too
            self.connection.execute("PRAGMA busy_timeout = 200")
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.connection.close()

    def _newest(self, table: str) -> int:
        # Retention may delete the newest row; numbers are never given twice all the same.
        sql = (
            f"SELECT max(coalesce(max(seq), 0), coalesce((SELECT value FROM counters WHERE name = ?), 0)) FROM {table}"
        )
        newest: int = self.connection.execute(sql, (table,)).fetchone()[0]
        return newest

    # --- the batch -------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        self.connection.execute("BEGIN IMMEDIATE")

    def write(self) -> None:
        """Write what the batch changed, so that little is left to do at its end."""
        self._write()

    def flush(self) -> None:
        """Write what the batch changed, and commit: durable when this returns."""
        self._write()
        if self._logs:
            self.connection.executemany("INSERT OR IGNORE INTO logs VALUES (?, ?, ?, ?, ?, ?, ?)", self._logs)
        if self._log_files:
            self.connection.executemany("INSERT OR IGNORE INTO log_files VALUES (?, ?, ?, ?)", self._log_files)
        self.connection.execute("COMMIT")
        self._logs.clear()
        self._log_files.clear()
        self._evict()

    def rollback(self) -> None:
        """Forget the batch; memory goes back to what the file says."""
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")
        self.functions = Functions(self.connection)
        self.types = TypeStore(self.connection)
        self.people.forget()
        self.unrouted.reset()
        self._forget_runs()
        self._event_seq, self._run_seq = self._newest("events"), self._newest("runs")

    def move_back(self, by_ms: int, now: int) -> Iterator[None]:
        """The clock was set back to `now`: at the beginning of a batch, move what it had set while it was ahead, a
        piece at a time."""
        self._forget_runs()
        yield from move_back(self.connection, self.functions.plan, by_ms, now)
        self.timers.changed = True

    def _forget_runs(self) -> None:
        """What is in memory of runs; it is read again."""
        self._kept.clear()
        self._dirty.clear()
        self._resting.clear()
        self._attempts.clear()
        self._long_texts.clear()
        self._parts.clear()
        self._whole.clear()
        self._kept_bytes = 0

    def _write(self) -> None:
        new, moved, changed = [], [], []
        for kept in self._dirty:
            record, run, state = kept.record, kept.record.run, self._state(kept)
            busy = bits_of(run.steps).busy & ~record.plan.approval_bits != 0  # whoever waits for people waits for time
            if kept.new:
                plan = record.plan
                new.append(
                    (kept.seq, run.id, plan.function_id, plan.version, record.event.seq, user_key(record.event.user),
                     record.after, record.rerun_of, int(run.status), busy, run.created_at, run.ended_at, state,
                     record.replay)
                )  # fmt: skip
            elif busy != kept.busy or run.ended_at is not None:
                moved.append((int(run.status), busy, run.ended_at, state, kept.seq))
            else:  # the columns that have an index stay out of most updates
                changed.append((state, kept.seq))
            kept.busy = busy
            kept.new = kept.dirty = False
            if not busy:
                self._resting.append(kept)
        self._dirty.clear()
        if new:
            self.connection.executemany(_INSERT_RUN, new)
        if changed:
            self.connection.executemany("UPDATE runs SET state = ? WHERE seq = ?", changed)
        if moved:
            sql = "UPDATE runs SET status = ?, active = ?, ended_at = ?, state = ? WHERE seq = ?"
            self.connection.executemany(sql, moved)
        if self._parts:
            write_parts(self.connection, self._parts)
            self._parts.clear()
        if self._whole:
            drop_parts(self.connection, self._whole)
            self._whole.clear()
        if self._attempts:
            self.connection.executemany(_INSERT_ATTEMPT, self._attempts)
            self._attempts.clear()
        if self._long_texts:
            self.connection.executemany(long_texts.INSERT, self._long_texts)
            self._long_texts.clear()

    def _state(self, kept: _Kept) -> bytes:
        """What a run's row says of its state. While a long run is open, parts of it are rows of their own."""
        run = kept.record.run
        if not kept.is_long:
            return pack(run)
        if run.ended_at is not None:
            self._whole.append(kept.seq)
            return pack(run)
        if kept.packer is None:
            kept.packer = Packer(run)
        state, parts = kept.packer.pack(run)
        self._parts += [(kept.seq, *part) for part in parts]
        return state

    def _evict(self) -> None:
        """Keep the runs that attempts are queued or running for: the others have ended, or wait for time or events."""
        for kept in self._resting:
            if not kept.busy and self._kept.pop(kept.record.run.id, None) is not None:
                self._kept_bytes -= kept.size
        self._resting.clear()
        while len(self._kept) > _KEPT_RUNS or (self._kept_bytes > _KEPT_BYTES and self._kept):
            _, kept = self._kept.popitem(last=False)
            self._kept_bytes -= kept.size

    def forget(self, runs: Sequence[tuple[int, str]]) -> list[str]:
        """Take runs that have ended, by row and id, out of memory, with what of their logs is not written yet. Answers
        the names of files that no row names now."""
        for _, run_id in runs:
            kept = self._kept.pop(run_id, None)
            self._kept_bytes -= 0 if kept is None else kept.size
        seqs = {seq for seq, _ in runs}
        self._logs = [row for row in self._logs if row[0] not in seqs]
        dropped = [row[3] for row in self._log_files if row[0] in seqs]
        self._log_files = [row for row in self._log_files if row[0] not in seqs]
        return dropped

    # --- events ----------------------------------------------------------------------------------------------------

    def catalog(self) -> Catalog:
        if not self.functions.has_catalog:
            self._write()  # runs of this very batch may keep an old version in use
        return self.functions.catalog()

    def prepare(self) -> Iterator[None]:
        """Do, a piece at a time, what the first events would else have to wait for."""
        self._write()
        for _ in self.functions.prepare():
            yield
            self._write()  # what a batch has done meanwhile

    def position(self, now: int) -> int:
        return self._event_seq

    def put_events(self, events: Sequence[NewEvent], now: int) -> list[Accepted | NotWritten | None]:
        known = self._known([new.event.id for new in events if not new.event.fresh])
        accepted: list[Accepted | NotWritten | None] = []
        newest = self._event_seq + len(events)
        number: Callable[[Entries], int] | None = None
        rows, keys = [], []
        for new in events:
            event = new.event
            if event.id in known:
                accepted.append(None)
                continue
            if not event.fresh:
                known.add(event.id)
            self._event_seq += 1
            event.seq = self._event_seq
            accepted.append(Accepted(event.seq, new.starts))
            misses = None
            if new.misses is not NO_MISSES:
                number = number or cache(lambda entries: number_of(self.connection, entries, newest))
                misses = misses_json(new.misses, number)
            invalid = orjson.dumps(event.invalid[:MOST_SHOWN]) if event.invalid else None
            user = None
            if event.user:
                user = user_key(event.user)
                if new.replay is None:
                    self.people.record(event, now)
            rows.append((event.seq, event.id, event.name, user, now, event.body, misses, new.replay, invalid))
            if new.keys:
                keys += [(key, event.seq) for key in new.keys]
        if rows and self.connection.executemany(_INSERT_EVENT, rows).rowcount != len(rows):
            self._insert_under_other_ids([new.event for new in events if new.event.fresh], rows)
        if keys:
            self.connection.executemany("INSERT OR IGNORE INTO event_keys VALUES (?, ?)", keys)
        return accepted

    def _insert_under_other_ids(self, fresh: Sequence[Event], rows: Sequence[tuple[Any, ...]]) -> None:
        """Ids of new events are not looked for before they are stored. Those that were taken get others."""
        stored = {seq for (seq,) in self.connection.execute("SELECT seq FROM events WHERE seq >= ?", (rows[0][0],))}
        missing = {event.seq: event for event in fresh if event.seq not in stored}
        for row in rows:
            seq, _, name, user, at, _, *rest = row
            if seq not in missing:
                continue
            event = missing[seq]
            while self._known([event.id]):
                event.rename(next_event_id(event.id))
            self.connection.execute(_INSERT_EVENT, (seq, event.id, name, user, at, event.body, *rest))

    def keep(self, function_id: str, event: Event, now: int) -> bool:
        self.functions.keep(function_id, event.seq)
        return True

    def _known(self, ids: Sequence[str]) -> set[str]:
        known: set[str] = set()
        for start in range(0, len(ids), 500):
            some = ids[start : start + 500]
            marks = ",".join("?" * len(some))
            known.update(i for (i,) in self.connection.execute(f"SELECT id FROM events WHERE id IN ({marks})", some))
        return known

    def events(self, ids: Sequence[str]) -> dict[str, Event]:
        found = {}
        for event_id in ids:
            row = self.connection.execute("SELECT seq, body FROM events WHERE id = ?", (event_id,)).fetchone()
            if row:
                found[event_id] = Event.stored(*row)
        return found

    def look_on(self, run_id: str, pause: int, after: int) -> None:
        """Nobody asks for it: within a batch the engine goes on by itself."""

    def find_events(self, name: str, key: bytes | None, after: int, before: int) -> Iterator[Event]:
        if key is None:
            sql = (
                "SELECT seq, body FROM events WHERE name = ? AND seq > ? AND accepted_at < ? AND replay IS NULL"
                " ORDER BY seq"
            )
        else:
            sql = (
                "SELECT seq, body FROM event_keys JOIN events ON events.seq = event_keys.event"
                " WHERE key = ? AND event > ? AND accepted_at < ? ORDER BY event"
            )
        for row in self.connection.execute(sql, (name if key is None else key, after, before)):
            yield Event.stored(*row)

    def find_waits(self, event: Event, keys: Sequence[bytes], behind: WaitPlace | None = None) -> FoundWaits:
        self._write()  # runs of this very batch have waits too
        return self.waits.find(event, keys, behind)

    # --- runs ------------------------------------------------------------------------------------------------------

    def load(self, run_ids: Iterable[str]) -> dict[str, RunRecord]:
        records = {}
        for run_id in run_ids:
            kept = self._kept.get(run_id) or self._read(run_id)
            if kept is not None:
                self._kept.move_to_end(run_id)
                records[run_id] = kept.record
        return records

    def waiting(self, record: RunRecord) -> Sequence[AttemptEnded]:
        return ()  # every transition is written at once

    def add(self, record: RunRecord) -> None:
        self._run_seq += 1
        record.order = self._run_seq
        self._kept[record.run.id] = _Kept(record, self._run_seq, new=True)

    def _read(self, run_id: str) -> _Kept | None:
        row = self.connection.execute(
            'SELECT runs.seq, function, version, "after", rerun_of, runs.replay, state, events.seq, body'
            " FROM runs JOIN events ON events.seq = runs.event WHERE runs.id = ?",
            (run_id,),
        ).fetchone()
        if row is None:
            return None
        seq, function, version, after, rerun_of, replay, state, event_seq, body = row
        run, plan = read_run(self.connection, seq, run_id, state), self.functions.plan(function, version)
        record = RunRecord(run, plan, Event.stored(event_seq, body), after, rerun_of, replay, seq)
        results = self.connection.execute(_RESULTS, (seq,))
        for step, output, error in results:
            if run.steps[step].status is StepStatus.COMPLETED and output is not None:
                record.outputs[step] = output
            elif run.steps[step].status is StepStatus.FAILED and error is not None:
                record.errors[step] = error
        kept = self._kept[run_id] = _Kept(record, seq)
        return kept

    def commit(self, changes: Sequence[Change], now: int) -> Sequence[RunRecord | NotWritten | None]:
        for change in changes:
            kept = self._kept[change.record.run.id]
            if not kept.dirty and (kept.new or change.record.run is not change.before):
                kept.dirty = True
                self._dirty.append(kept)
            for command in change.commands:
                if not isinstance(command, RunStep):
                    self._obey(kept, command)
        return [None] * len(changes)  # a single writer never loses a race

    def _obey(self, kept: _Kept, command: Command) -> None:
        seq = kept.seq
        if isinstance(command, RecordAttempt):
            self._record(kept, command)
        elif isinstance(command, SetTimer):
            self.timers.set(seq, command.timer, command.due_at)
        elif isinstance(command, ClearTimer):
            self.timers.clear(seq, command.timer)
        elif isinstance(command, OpenWait):
            self.waits.open(seq, kept.record, command)
        elif isinstance(command, CloseWait):
            self.waits.close(seq, kept.record, command.pause)

    def _record(self, kept: _Kept, command: RecordAttempt) -> None:
        output, error = command.output, error_json(command.error) if command.error else None
        size = len(output or b"") + len(error or b"")
        kept.size += size
        self._kept_bytes += size
        if size > long_texts.MOST_BYTES:  # an attempt has one of the two
            place = long_texts.place(kept.seq, command.step, command.attempt)
            self._long_texts.append((place, output or error or b""))
            output, error = output and long_texts.IN_ITS_PLACE, error and long_texts.IN_ITS_PLACE
        self._attempts.append(
            (kept.seq, command.step, command.attempt, command.status, command.queued_at, command.started_at,
             command.ended_at, output, error, user_key(kept.record.event.user))
        )  # fmt: skip

    def active(self) -> list[str]:
        """Runs with attempts that are queued or running."""
        return [i for (i,) in self.connection.execute("SELECT id FROM runs WHERE active = 1 ORDER BY seq")]

    # --- logs ------------------------------------------------------------------------------------------------------

    def add_log(self, run_id: str, step: int, attempt: int, seq: int, at: int, stream: str, text: bytes) -> None:
        """Keep a piece of an attempt's log; it is written with the next batch."""
        kept = self._kept.get(run_id) or self._read(run_id)
        if kept is not None:
            self._logs.append((kept.seq, step, attempt, seq, at, stream, text))

    def add_log_file(self, run_id: str, step: int, attempt: int) -> str | None:
        """A name for the file with the rest of an attempt's log; its row is written with the next batch. None if there
        is no such run."""
        kept = self._kept.get(run_id) or self._read(run_id)
        if kept is None:
            return None
        name = new_name(kept.seq, step, attempt)
        self._log_files.append((kept.seq, step, attempt, name))
        return name

    @property
    def has_logs(self) -> bool:
        return bool(self._logs or self._log_files)

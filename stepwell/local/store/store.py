"""The engine's store in SQLite: state and queue change in one transaction, which is one batch of the engine.

A single writer owns the database. Active runs stay in memory, and each is written once per batch, at the commit.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from stepwell.core.routing.triggers import Catalog
from stepwell.local.database.schema import connect, forget_statistics, migrate
from stepwell.local.store.accepted_attempts import AcceptedAttempts
from stepwell.local.store.batch import LocalBatch
from stepwell.local.store.event_rows import EventRows
from stepwell.local.store.event_types import TypeStore
from stepwell.local.store.functions import Functions
from stepwell.local.store.limit_rows import LimitRows
from stepwell.local.store.limit_values import LimitValues
from stepwell.local.store.log_rows import LogRows
from stepwell.local.store.open_waits import OpenWaits
from stepwell.local.store.run_cache import CachedRun, RunCache
from stepwell.local.store.run_rows import RunRows
from stepwell.local.store.start_checks import LocalStartChecks
from stepwell.local.store.timers import Timers
from stepwell.local.store.unrouted import Unrouted
from stepwell.local.store.users import UserIndex
from stepwell.platform import RunRecord

_PAGE = 500  # runs


class LocalStore:
    """Implements `platform.Store`. There is at most one batch at a time."""

    def __init__(self, path: Path | str, *, durable: bool = False) -> None:
        self.path, self.durable = Path(path), durable
        self.connection = connect(path, durable=durable)
        migrate(self.connection)
        forget_statistics(self.connection)
        self.functions = Functions(self.connection)
        self.timers = Timers(self.connection)
        self.types = TypeStore(self.connection)
        self.users = UserIndex(self.connection)
        self.checks = LocalStartChecks(self.connection)
        self.waits = OpenWaits(self.connection, lambda *version: self.functions.plan(*version))
        self.unrouted = Unrouted(self.connection, self.catalog)
        self.cache = RunCache(self.connection, lambda *version: self.functions.plan(*version))
        self.runs = RunRows(self.connection)
        self.logs = LogRows(self.connection, self.cache)
        self.accepted = AcceptedAttempts(self.connection)
        self.limit_rows = LimitRows(self.connection)
        self.limit_values = LimitValues(self.connection, lambda: self.functions.changes)
        self.events = EventRows(self.connection, self.users, self._newest("events"))
        self._newest_run = self._newest("runs")

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # the store must close even if nothing can be written
            self.connection.execute("PRAGMA busy_timeout = 200")
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.connection.close()

    def _newest(self, table: str) -> int:
        # Retention may delete the newest row, but a number is never used twice.
        sql = (
            f"SELECT max(coalesce(max(seq), 0), coalesce((SELECT value FROM counters WHERE name = ?), 0)) FROM {table}"
        )
        newest: int = self.connection.execute(sql, (table,)).fetchone()[0]
        return newest

    # --- batches ---------------------------------------------------------------------------------------------------

    def batch(self, now: int) -> LocalBatch:
        return LocalBatch(self, now)

    def write(self) -> None:
        """Writes the batch's changes to runs so far, within the batch's transaction."""
        self.runs.write()

    def reset(self) -> None:
        """Rolls back the current transaction, and drops or reloads what is held in memory."""
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")
        self.functions = Functions(self.connection)
        self.types = TypeStore(self.connection)
        self.users.forget()
        self.unrouted.reset()
        self.limit_rows.reset()
        self.limit_values.reset()
        self.forget_runs()
        self.events.newest, self._newest_run = self._newest("events"), self._newest("runs")

    def forget_runs(self) -> None:
        """Drops all runs from memory; they are read again when needed."""
        self.cache.drop_all()
        self.runs.drop_all()

    # --- functions -------------------------------------------------------------------------------------------------

    def catalog(self) -> Catalog:
        catalog = self.functions.current_catalog
        if catalog is None:
            self.write()  # runs of this batch may keep an old version in use
            catalog = self.functions.catalog()
        return catalog

    def prepare(self) -> Iterator[None]:
        """Does in pieces the work that the first events would otherwise wait for."""
        self.write()
        for _ in self.functions.prepare():
            yield
            self.write()  # changes that a batch made in the meantime

    # --- runs ------------------------------------------------------------------------------------------------------

    def load(self, run_ids: Iterable[str]) -> dict[str, RunRecord]:
        """Runs by id, for use between batches; unknown ids are left out."""
        return self.cache.load(run_ids)

    def add(self, record: RunRecord) -> None:
        """Adds a new run. The first commit makes it durable."""
        self._newest_run += 1
        same = record.run, record.plan, record.event, record.after, record.rerun_of, record.replay
        self.cache.add(CachedRun(RunRecord(*same, order=self._newest_run), self._newest_run, is_new=True))

    def active(self) -> list[str]:
        """Ids of runs that have queued or running attempts, or have not begun."""
        return [i for (i,) in self.connection.execute("SELECT id FROM runs WHERE active = 1 ORDER BY seq")]

    def started_with_limits(self) -> Iterator[list[str]]:
        """Ids of open runs that count for a limit of open runs, a page at a time. They may not have started yet."""
        sql = "SELECT function, version FROM versions WHERE instr(definition, ?) > 0"
        for version in self.connection.execute(sql, (b'"scope":"run"',)).fetchall():
            sql = "SELECT id FROM runs WHERE status = 0 AND function = ? AND version = ?"
            cursor = self.connection.execute(sql, version)
            while page := cursor.fetchmany(_PAGE):
                yield [run_id for (run_id,) in page]

    def forget(self, runs: Sequence[tuple[int, str]]) -> list[str]:
        """Drops ended runs, by row number and id, and their unwritten logs from memory. Returns the names of files that
        no row refers to now."""
        for _, run_id in runs:
            self.cache.drop(run_id)
        return self.logs.drop([row for row, _ in runs])

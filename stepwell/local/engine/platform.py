"""The local platform: puts the parts together, and starts and closes them."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from stepwell.core.events.events import Event
from stepwell.core.run.approvals import Links
from stepwell.core.signing import single_key
from stepwell.engine.loop import Engine
from stepwell.local.database.keys import link_secret
from stepwell.local.database.log_files import LogFiles
from stepwell.local.database.wal import WriteAheadLog
from stepwell.local.engine.attempt_reports import AttemptReports
from stepwell.local.engine.backlog import Backlog
from stepwell.local.engine.batch_limit import SLICE_S
from stepwell.local.engine.batch_loop import BatchLoop, Unavailable
from stepwell.local.engine.batch_work import BatchWork
from stepwell.local.engine.clock import Clock
from stepwell.local.engine.executor import Executor
from stepwell.local.engine.fact_retries import FactRetries
from stepwell.local.engine.intake import Intake
from stepwell.local.engine.jobs import Jobs
from stepwell.local.engine.limits import Limits
from stepwell.local.engine.recovery import Recovery
from stepwell.local.engine.registration import Registration
from stepwell.local.engine.run_control import RunControl
from stepwell.local.engine.settings import Settings
from stepwell.local.engine.steady_clock import SteadyClock
from stepwell.local.engine.virtual_time import VirtualTime
from stepwell.local.runners.job import RemoteRunner
from stepwell.local.store.clock_steps import newest_time
from stepwell.local.store.store import LocalStore
from stepwell.platform import AttemptId

log = logging.getLogger("stepwell.local")

T = TypeVar("T")


class LocalPlatform:
    def __init__(self, store: LocalStore, runner: RemoteRunner, code: Path, clock: Clock, settings: Settings) -> None:
        self.store, self.clock, self.code = store, clock, code
        self.code_lock = asyncio.Lock()  # held from storing code until a version refers to it: prevents clean-up
        self.wal = WriteAheadLog(store.path)
        self.links = Links(settings.public_url, single_key(link_secret(store.connection)))
        self.log_files = LogFiles(store.path, durable=store.durable)
        backlog = Backlog()
        self._reports = AttemptReports(store, self.log_files, backlog, clock, lambda: self.batches.schedule())
        make_job = Jobs(store, code, settings.secret).make
        steady_clock = SteadyClock(clock, newest_time(store.connection))
        limits = Limits(store.limit_rows, store.limit_values, steady_clock.now)
        self.executor = Executor(runner, make_job, self._reports, limits, settings.parallelism, settings.http_slots)
        engine = Engine(self.executor, settings.env, lambda: self.links, store.types.errors_if_refused)
        self._recovery = Recovery(store, self.executor, backlog)
        self._fact_retries = FactRetries(
            store, backlog, self._recovery, settings.retry_s, lambda: self.batches.schedule()
        )
        work = BatchWork(engine, store, self.executor, backlog, self._fact_retries, settings)
        self.executor.worker_queues.on_request = lambda: self.batches.schedule()
        self.executor.worker_queues.on_undelivered = self._queue_again
        self.batches = BatchLoop(store, self.executor, backlog, work, self._recovery, steady_clock, settings)
        self.intake = Intake(store, self.batches, work, clock)
        self.runs = RunControl(store, self.batches, work)
        self.registration = Registration(store, self.batches)
        self.virtual_time = VirtualTime(clock, self.batches, self.executor)
        self._loop = asyncio.get_running_loop()
        self._drained_at: float | None = None

    # --- common operations -----------------------------------------------------------------------------------------

    def send(self, events: Sequence[Event]) -> Awaitable[None]:
        """Accepts events, which are durable once this has been awaited. Raises Unavailable, and BadRequest if a type
        refuses some of them."""
        return self.intake.send(events)

    async def in_transaction(self, call: Callable[[sqlite3.Connection, int], None]) -> None:
        """Runs housekeeping, such as retention, as part of a batch. Raises Unavailable."""
        await self.batches.do(lambda batch: call(self.store.connection, batch.now))

    async def exclusively(self, work: Callable[[], T]) -> T:
        """Runs work on the database in a thread, while no batch is written. New work waits until it is done."""
        return await self.batches.exclusively(work)

    async def until_idle(self) -> None:
        """Returns when nothing can happen without another event or a later timer."""
        await self.virtual_time.until_idle()

    async def travel(self, ms: int) -> None:
        """Moves the clock forward. Every timer on the way fires at its own time."""
        await self.virtual_time.travel(ms)

    # --- start and close -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Continues where the last process stopped: running attempts are lost, queued ones are queued again."""
        self.log_files.remove_orphans()
        for run_ids in self._recovery.pieces():
            await self.batches.between_batches()
            self._recovery.recover(run_ids)
            self.batches.schedule()
            await asyncio.sleep(0)
        self._recovery.admit()
        self.store.accepted.keep(self.executor.running)
        self.batches.release_held_events()

    async def prepare(self) -> None:
        """Does the work that the next events would otherwise wait for. Requests are answered in between."""
        slice_ends = time.perf_counter() + SLICE_S
        for _ in self.store.prepare():
            if time.perf_counter() > slice_ends:
                await asyncio.sleep(0)
                slice_ends = time.perf_counter() + SLICE_S

    def drain(self) -> None:
        """Stops starting attempts. The grace period of running ones begins."""
        self.executor.pause()
        if self._drained_at is None:
            self._drained_at = self._loop.time()

    async def close(self, grace_s: float = 0.0) -> None:
        """Drains, waits up to `grace_s` for running attempts, then queues the rest again as lost.

        All processes end even if that fails; attempts whose end is not written are found lost at the next start."""
        self.drain()
        try:
            await self._let_end(grace_s)
        except Unavailable as reason:
            log.error("running attempts could not be recorded as lost: %s", reason)
        finally:
            self._reports.close()
            self.batches.close()
            self._fact_retries.close()
            await self.executor.close()
            await self.log_files.close()
            self.store.close()

    def _queue_again(self, undelivered: AttemptId) -> None:
        self._recovery.lose([undelivered])
        self.batches.schedule()

    async def _let_end(self, grace_s: float) -> None:
        assert self._drained_at is not None
        deadline = self._drained_at + grace_s
        while self.executor.running_here and self._loop.time() < deadline:
            await asyncio.sleep(0.02)
        await self.batches.write_all()  # what is claimed until then has gone to a worker, or comes back
        while self.executor.is_launching:
            await asyncio.sleep(0)
        self._recovery.lose_running()
        await self.batches.write_all()

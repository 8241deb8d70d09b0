"""The loop of batches on the event loop: an engine batch is one transaction, after which waiting senders are answered.

This is group commit: no request is answered, and no claimed attempt is launched, before the batch is durable. A batch
is done in slices, so that other requests are answered in between. All of it runs on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from stepwell.local.engine.backlog import Backlog, Call, Line
from stepwell.local.engine.batch_limit import SLICE_S
from stepwell.local.engine.batch_work import Batch, BatchWork
from stepwell.local.engine.due_timer import DueTimer
from stepwell.local.engine.executor import Executor
from stepwell.local.engine.recovery import Recovery
from stepwell.local.engine.settings import Settings
from stepwell.local.engine.steady_clock import SteadyClock
from stepwell.local.store.batch import LocalBatch
from stepwell.local.store.store import LocalStore
from stepwell.platform import IncomingEvent, RunFact

log = logging.getLogger("stepwell.local")

T = TypeVar("T")


class Unavailable(Exception):
    """The batch could not be written (for example: disk full), and nothing of it was accepted. Try again."""


class BatchLoop:
    def __init__(
        self,
        store: LocalStore,
        executor: Executor,
        backlog: Backlog,
        work: BatchWork,
        recovery: Recovery,
        clock: SteadyClock,
        settings: Settings,
    ) -> None:
        self._store, self._executor, self._backlog, self._work = store, executor, backlog, work
        self._recovery, self._clock, self._retry_s = recovery, clock, settings.retry_s
        self._loop = asyncio.get_running_loop()
        self.timer = DueTimer(clock, settings.look_again_s, self._on_due)
        self.begun = 0  # number of batches so far
        self._batch: Batch | None = None  # the current batch
        self._transaction: LocalBatch | None = None  # the current batch's transaction
        self._steps: Iterator[None] = iter(())  # the rest of the current batch, in pieces
        self._limits_due: int | None = None  # when limits allow the next start
        self._is_scheduled = False
        self._is_blocked = False
        self._is_closed = False
        self._exclusive = asyncio.Lock()
        self._retry: asyncio.TimerHandle | None = None

    # --- work for the next batches ---------------------------------------------------------------------------------

    def accept(self, request: Sequence[IncomingEvent]) -> asyncio.Future[None]:
        """Accepts the events of a request. The future resolves when they are durable, or raises Unavailable."""
        self._backlog.requests.add_one(request)
        return self._durable(self._backlog.requests)

    def fold(self, facts: Iterable[RunFact]) -> asyncio.Future[None]:
        """Folds facts into their runs. The future resolves when that is durable, or raises Unavailable."""
        self._backlog.facts.add(facts)
        return self._durable(self._backlog.facts)

    def do(self, call: Call) -> asyncio.Future[None]:
        """Calls this as part of a batch. The future resolves when that is durable, or raises Unavailable."""
        self._backlog.calls.add_one(call)
        return self._durable(self._backlog.calls)

    async def result_of(self, work: Callable[[LocalBatch], T], *refusals: type[Exception]) -> T:
        """Does this work as part of a batch, and returns the result. Raises Unavailable.

        If the work raises one of `refusals`, it must have written nothing: the batch continues without it, and the
        error is raised here. Any other error rolls the batch back."""
        results: list[T] = []
        refused: list[Exception] = []

        def call(batch: LocalBatch) -> None:
            try:
                results.append(work(batch))
            except refusals as reason:
                refused.append(reason)

        await self.do(call)
        if refused:
            raise refused[0]
        return results[0]

    def announce(self, events: Sequence[IncomingEvent]) -> None:
        """Accepts events that the engine itself emits, without waiting until they are durable."""
        self._backlog.requests.add_one(events)
        self.schedule()

    def release_held_events(self) -> None:
        """Routes soon the events that were held while their functions were paused."""
        self._work.release_held_events()
        self.schedule()

    def schedule(self) -> None:
        """Begins or continues a batch in the event loop's next iteration."""
        if not self._is_scheduled and not self._is_closed:
            self._is_scheduled = True
            self._loop.call_soon(self._go_on)

    async def exclusively(self, work: Callable[[], T]) -> T:
        """Runs work on the database in a thread, while no batch is written. New work waits until it is done."""
        async with self._exclusive:
            self._is_blocked = True
            try:
                await self.between_batches()
                return await asyncio.to_thread(work)
            finally:
                self._is_blocked = False
                self.schedule()

    async def between_batches(self) -> None:
        """Waits until no batch is in progress."""
        while self._batch is not None:
            await asyncio.sleep(0)

    async def write_all(self) -> None:
        """Waits until all work so far is durable. Raises Unavailable."""
        if self._backlog or self._batch is not None or self._store.logs or self._store.accepted:
            for line in (self._backlog.requests, self._backlog.calls, self._backlog.facts):
                await self._durable(line)

    @property
    def is_idle(self) -> bool:
        """Whether no batch is in progress or needed."""
        is_pending = self._is_scheduled or self._batch is not None
        return not (is_pending or self._work.has_more or self._store.unrouted)

    def close(self) -> None:
        """Stops the loop, and abandons the current batch."""
        self._is_closed = True
        self.timer.cancel()
        if self._retry is not None:
            self._retry.cancel()

    def _durable(self, line: Line[Any]) -> asyncio.Future[None]:
        """A future that resolves when all that is in this line is durable."""
        future: asyncio.Future[None] = self._loop.create_future()
        line.wait(future)
        self.schedule()
        return future

    def _on_due(self) -> None:
        self._store.timers.changed = True
        self.schedule()

    # --- a batch ---------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Does a slice of a batch. After the last one, commits, resolves futures, and launches claimed attempts."""
        self._is_scheduled = False
        if self._is_closed or (self._is_blocked and self._batch is None):
            return
        try:
            if self._batch is None:
                self._begin()
            slice_ends = time.perf_counter() + SLICE_S
            for _ in self._steps:
                if time.perf_counter() > slice_ends:
                    self.schedule()
                    return
            if self._transaction is not None:
                self._transaction.flush()
        except Exception as error:
            self._roll_back(error)
            return
        batch, self._batch, self._transaction = self._batch, None, None
        assert batch is not None
        self._clock.moved_back(batch.set_back_ms)
        for future in self._backlog.reached():
            if not future.done():
                future.set_result(None)
        self._executor.launch()
        self._work.committed(batch)
        self._set_timer(batch.now)
        if self._work.has_more:
            self.schedule()

    def _set_timer(self, now: int) -> None:
        limits_due = self._executor.limits.next_due
        if self._store.timers.changed or limits_due != self._limits_due:
            self._limits_due = limits_due
            due = self._store.timers.next_due()
            self.timer.set(min((at for at in (due, limits_due) if at is not None), default=None), now)

    def _begin(self) -> None:
        now = self._clock.now()
        batch = self._work.begin(now, self._clock.set_back_ms, has_due=self.timer.is_due(now))
        self.begun += 1
        self._batch = batch
        self._transaction = self._store.batch(now)
        self._steps = self._work.steps(batch, self._transaction)

    def _roll_back(self, error: Exception) -> None:
        """Undoes the batch: senders get Unavailable, facts are kept for another try."""
        log.error("a batch could not be written, trying again in %s s: %s", self._retry_s, error, exc_info=error)
        batch, self._batch, self._transaction = self._batch, None, None
        self._store.reset()
        self._executor.discard_batch()
        for future in self._backlog.reached():
            if not future.done():
                future.set_exception(Unavailable(f"not accepted, try again: {error}"))
        self._work.undo(batch)
        self._retry = self._retry or self._loop.call_later(self._retry_s, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self._work.try_again()
        if self._batch is not None:  # attempts that it has claimed do not run yet, but are not lost
            self._retry = self._loop.call_later(SLICE_S, self._try_again)
            return
        try:
            self._recovery.recover_all()
        except sqlite3.Error as error:
            log.error("the database cannot be read, trying again in %s s: %s", self._retry_s, error)
            self._retry = self._loop.call_later(self._retry_s, self._try_again)
        else:
            self.schedule()

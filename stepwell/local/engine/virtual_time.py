"""Moves a server's clock forward, for tests and `stepwell run`, and detects when a server is idle."""

from __future__ import annotations

import asyncio

from stepwell.local.engine.batch_loop import BatchLoop
from stepwell.local.engine.clock import Clock
from stepwell.local.engine.executor import Executor


class VirtualTime:
    def __init__(self, clock: Clock, batches: BatchLoop, executor: Executor) -> None:
        self._clock, self._batches, self._executor = clock, batches, executor

    @property
    def is_idle(self) -> bool:
        """Whether nothing is running, queued, pending or due: only an event or a later timer can change that."""
        is_overdue = self._batches.timer.is_due(self._clock.now())
        return self._executor.is_idle and self._batches.is_idle and not is_overdue

    @property
    def next_due(self) -> int | None:
        """When the next timer or cron tick is due, in ms since the epoch."""
        return self._batches.timer.next_due

    async def until_idle(self) -> None:
        while not self.is_idle:
            await asyncio.sleep(0.001)

    async def travel(self, ms: int) -> None:
        """Moves the clock forward. Every timer on the way fires at its own time, and the attempts that it starts end
        before the clock moves on."""
        target = self._clock.now() + ms
        await self.until_idle()
        while self.next_due is not None and self.next_due <= target:
            await self._move_to(self.next_due)
        await self._move_to(target)

    async def _move_to(self, time: int) -> None:
        self._clock.advance(max(0, time - self._clock.now()))
        self._batches.schedule()
        await self.until_idle()

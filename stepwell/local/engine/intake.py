"""Incoming events: validated against their types, then accepted by a batch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

from stepwell.core.events.events import Event
from stepwell.core.events.request import BadRequest, EventError
from stepwell.event_types.effort import Effort
from stepwell.event_types.registry import MOST_TOLD, errors_of
from stepwell.local.engine.batch_limit import SLICE_S
from stepwell.local.engine.batch_loop import BatchLoop
from stepwell.local.engine.batch_work import BatchWork
from stepwell.local.engine.clock import Clock
from stepwell.local.store.store import LocalStore
from stepwell.platform import IncomingEvent


class Intake:
    def __init__(self, store: LocalStore, batches: BatchLoop, work: BatchWork, clock: Clock) -> None:
        self._store, self._batches, self._work, self._clock = store, batches, work, clock
        self._judging = asyncio.Lock()

    def send(self, events: Sequence[Event]) -> Awaitable[None]:
        """Accepts events, which are durable once this has been awaited. Raises Unavailable, and BadRequest if a type
        refuses some of them."""
        return self._send_judged(events) if self._store.types.current().has_any else self._accept(events)

    def sender(self) -> Callable[[Sequence[Event]], asyncio.Future[None]] | None:
        """`send` without validation; None if there are types, or a policy for events without a type."""
        return None if self._store.types.current().has_any else self._accept

    def tick(self, function_id: str, tick: Event) -> asyncio.Future[None]:
        """Accepts a cron tick for this function now."""
        return self._batches.accept([IncomingEvent(tick, only=function_id)])

    async def judge(self, events: Iterable[tuple[int, Event]]) -> list[EventError]:
        """Validates events, given with their indexes in the request, and returns the errors of the refused ones.

        The engine also emits events about these. With the policy `warn`, invalid events are only marked. Requests are
        answered in between."""
        types = self._store.types.current()
        if not types.has_any:
            return []
        refused, effort, slice_ends = [], Effort(), time.perf_counter() + SLICE_S
        has_turn = False
        try:
            for indexed in events:
                refused += types.refused([indexed], effort=effort)
                if time.perf_counter() > slice_ends:
                    if not has_turn:  # only one long validation at a time
                        has_turn = await self._judging.acquire()
                    await asyncio.sleep(0)
                    slice_ends = time.perf_counter() + SLICE_S
        finally:
            if has_turn:
                self._judging.release()
        for _, event, errors in refused[:MOST_TOLD]:
            self._batches.announce(self._work.refuse(event, errors, self._clock.now()))
        return errors_of(refused)

    async def _send_judged(self, events: Sequence[Event]) -> None:
        if errors := await self.judge(enumerate(events)):
            raise BadRequest(400, errors)
        await self._accept(events)

    def _accept(self, events: Sequence[Event]) -> asyncio.Future[None]:
        return self._batches.accept([IncomingEvent(event) for event in events])

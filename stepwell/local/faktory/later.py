"""Jobs that clients push with `at`, a time in the future. Each is stored, and becomes an event when it is due."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from stepwell.core.events.events import Event
from stepwell.core.events.request import BadRequest
from stepwell.local.engine.batch_loop import Unavailable
from stepwell.local.engine.platform import LocalPlatform
from stepwell.local.store.faktory_rows import FaktoryRows

log = logging.getLogger("stepwell.faktory")

_AT_ONCE = 200
_LOOK_AGAIN_S = 1.0  # the clock may be set while jobs wait


class LaterJobs:
    def __init__(self, platform: LocalPlatform, rows: FaktoryRows) -> None:
        self._platform, self._rows = platform, rows
        self._changed = asyncio.Event()

    async def add(self, jobs: Sequence[tuple[int, Event]]) -> None:
        """Stores events with their due times (ms since the epoch). Returns when they are durable. Raises
        Unavailable."""
        rows = [(due_at, event.id, event.body) for due_at, event in jobs]
        await self._platform.batches.do(lambda batch: self._rows.put_later(rows))
        self._changed.set()

    async def run(self) -> None:
        """Accepts events when they are due, until it is cancelled."""
        while True:
            self._changed.clear()
            try:
                while await self._accept_due():
                    pass
            except Unavailable as reason:
                log.warning("jobs that are due wait: %s", reason)
            if self._rows.next_due() is None:
                await self._changed.wait()
            else:
                await asyncio.sleep(_LOOK_AGAIN_S)

    async def _accept_due(self) -> bool:
        """Accepts some events that are due. Returns False if there are none. After a crash between the two writes,
        the events are sent again, and are duplicates."""
        due = self._rows.due(self._platform.clock.now(), _AT_ONCE)
        events = [Event.stored(0, body) for _, body in due]
        try:
            if events:
                await self._platform.send(events)
        except BadRequest:
            for event in events:
                await self._accept(event)
        if due:
            ids = [name for name, _ in due]
            await self._platform.batches.do(lambda batch: self._rows.remove_later(ids))
        return bool(due)

    async def _accept(self, event: Event) -> None:
        try:
            await self._platform.send([event])
        except BadRequest as bad:
            log.error("job %s is refused, because its event does not match its type: %s", event.id, bad)

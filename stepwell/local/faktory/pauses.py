"""Paused queues: their jobs stay queued until the queues are resumed, also after a restart of the server."""

from __future__ import annotations

from collections.abc import Sequence

from stepwell.local.engine.platform import LocalPlatform
from stepwell.local.faktory.commands import BadCommand, Queue
from stepwell.local.store.faktory_rows import FaktoryRows

ALL = "*"


class Pauses:
    """`names`: the paused queues; `*` stands for all queues."""

    def __init__(self, platform: LocalPlatform, rows: FaktoryRows) -> None:
        self._platform, self._rows = platform, rows
        self.names = rows.paused()

    def without(self, queues: Sequence[str]) -> list[str]:
        """The queues that are not paused."""
        return [] if ALL in self.names else [name for name in queues if name not in self.names]

    async def change(self, queue: Queue) -> None:
        """Pauses or resumes queues. Raises BadCommand, and Unavailable."""
        names = set(queue.names) or {ALL}
        if queue.action == "PAUSE":
            after = self.names | names
        elif not queue.names:
            after = set()
        elif ALL in self.names:
            raise BadCommand("all queues are paused; resume all of them with QUEUE RESUME *")
        else:
            after = self.names - names
        await self._platform.batches.do(lambda batch: self._rows.set_paused(after))
        self.names = after

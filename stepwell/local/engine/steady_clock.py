"""The time of batches: the wall clock, corrected when it is set back.

Small steps back are hidden, because lists rely on times that grow with row numbers. After a large step, a batch moves
stored times back by `set_back_ms`, and then calls `moved_back`.
"""

from __future__ import annotations

import logging

from stepwell.local.engine.clock import Clock
from stepwell.local.store.clock_steps import TOLERANCE_MS

log = logging.getLogger("stepwell.local")


class SteadyClock:
    def __init__(self, clock: Clock, latest: int) -> None:
        """`latest` is the latest known time of the clock, in ms since the epoch."""
        self._clock, self._latest = clock, latest
        self.set_back_ms = 0  # by which stored times are still to be moved back

    def now(self) -> int:
        """The time in ms since the epoch. It goes back only if the clock was set back by more than the tolerance."""
        now = self._clock.now()
        if now < self._latest - TOLERANCE_MS:
            self.set_back_ms += self._latest - now
            log.warning(
                "the clock was set back by %.0f s; timers that were set while it was ahead are moved back too",
                (self._latest - now) / 1000,
            )
            self._latest = now
        self._latest = max(self._latest, now)
        return self._latest

    def moved_back(self, by_ms: int) -> None:
        """Notes that stored times have been moved back."""
        self.set_back_ms -= by_ms

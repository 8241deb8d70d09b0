"""The time of batches: the wall clock, and by how much it was set back.

Small steps back are hidden: times of rows grow with the numbers of rows, and lists rely on that. After a large step, a
batch moves what is stored back by `set_back_ms` and then calls `moved_back`.
"""

from __future__ import annotations

import logging

from stepwell.local.engine.clock import Clock
from stepwell.local.store.clock_steps import TOLERANCE_MS

log = logging.getLogger("stepwell.local")


class SteadyClock:
    def __init__(self, clock: Clock, latest: int) -> None:
        """`latest`: a time that the clock is known to have shown, in ms since the epoch."""
        self._clock, self._latest = clock, latest
        self.set_back_ms = 0  # by which stored times are not moved yet

    def now(self) -> int:
        """The time in ms since the epoch. It goes back only when the clock was set back by more than a tolerance."""
        now = self._clock.now()
        if now < self._latest - TOLERANCE_MS:
            self.set_back_ms += self._latest - now
            log.warning(
                "the clock was set back by %.0f s; timers that were set while it was ahead move back with it",
                (self._latest - now) / 1000,
            )
            self._latest = now
        self._latest = max(self._latest, now)
        return self._latest

    def moved_back(self, by_ms: int) -> None:
        """Note that stored times have been moved back."""
        self.set_back_ms -= by_ms

"""The event loop's timer for whatever is due next: a run's timer, a cron tick, or a check of a canary."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from stepwell.local.engine.steady_clock import SteadyClock


class DueTimer:
    """Calls `when_due` at the set time, or when the clock was set back. The clock is read at least every `look_again_s`
    seconds, since it may be set forward, or a laptop may sleep."""

    def __init__(self, clock: SteadyClock, look_again_s: float, when_due: Callable[[], None]) -> None:
        self._clock, self._look_again_s, self._when_due = clock, look_again_s, when_due
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self.next_due: int | None = None  # in ms since the epoch

    def is_due(self, now: int) -> bool:
        return self.next_due is not None and self.next_due <= now

    def set(self, due: int | None, now: int) -> None:
        """Waits for this time; None: for nothing."""
        self.next_due = due
        self.cancel()
        if due is not None:
            delay_s = min(max(0, due - now) / 1000, self._look_again_s)
            self._handle = self._loop.call_later(delay_s, self._fired)

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fired(self) -> None:
        now = self._clock.now()
        if self._clock.set_back_ms or self.next_due is None or self.next_due <= now:
            self._when_due()
        else:
            self.set(self.next_due, now)

"""The server's time, in milliseconds since the epoch. Tests move it forward, so that they need not wait for delays.

It is the wall clock: people and other machines set it, and it continues while a laptop sleeps, unlike the event loop's
clock. So code that waits for a time must read this clock again at least every `LOOK_AGAIN_S`.
"""

from __future__ import annotations

import asyncio
import time

LOOK_AGAIN_S = 30.0


class Clock:
    def __init__(self) -> None:
        self._ahead_ms = 0

    def now(self) -> int:
        return time.time_ns() // 1_000_000 + self._ahead_ms

    async def pause(self, ms: int) -> None:
        """Returns when this much time has passed by this clock, or when the clock was set back."""
        began = self.now()
        while 0 <= (passed := self.now() - began) < ms:
            await asyncio.sleep(min((ms - passed) / 1000, LOOK_AGAIN_S))

    def advance(self, ms: int) -> None:
        self._ahead_ms += ms

"""The time of a server, in milliseconds since the epoch. It can be moved, so that nobody waits for a delay.

It is the wall clock, which people and other machines set, and which goes on while a laptop sleeps, as the event loop's
does not. One rule: whoever waits for a time looks at the clock again at least every `LOOK_AGAIN_S`.
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
        """Return when so much time has passed by this clock, or when it was set back."""
        began = self.now()
        while 0 <= (passed := self.now() - began) < ms:
            await asyncio.sleep(min((ms - passed) / 1000, LOOK_AGAIN_S))

    def advance(self, ms: int) -> None:
        self._ahead_ms += ms

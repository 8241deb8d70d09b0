"""The time of a server, in milliseconds since the epoch. It can be moved forward, so that nobody waits for a delay."""

from __future__ import annotations

import time


class Clock:
    def __init__(self) -> None:
        self._ahead_ms = 0

    def now(self) -> int:
        return time.time_ns() // 1_000_000 + self._ahead_ms

    def advance(self, ms: int) -> None:
        self._ahead_ms += ms

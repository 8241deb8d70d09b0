"""A token bucket: allows a burst, then so many operations a second."""

from __future__ import annotations

from collections.abc import Callable


class Allowance:
    def __init__(self, now: Callable[[], float], *, burst: float, per_s: float) -> None:
        self._now, self._burst, self._per_s = now, burst, per_s
        self._left, self._at = burst, now()

    def take(self) -> bool:
        """Takes one token. Returns False if the rate is exceeded."""
        now = self._now()
        self._left = min(self._burst, self._left + (now - self._at) * self._per_s) - 1
        self._at = now
        return self._left >= 0

    def give(self, times: int) -> None:
        self._left = min(self._burst, self._left + times)

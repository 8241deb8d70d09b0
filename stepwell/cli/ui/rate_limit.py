"""Rate limits: at most so many items a second."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

_RATE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(?:/(s|m|h))?")
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_CATCH_UP_S = 1.0  # after a longer pause, items are not sent in one burst to catch up


def per_second(text: str) -> float:
    """Parses a rate: `50/s`, `600/m`, `1000/h`, or just `50`. Raises ValueError with a message for the user."""
    found = _RATE.fullmatch(text)
    if found is None or float(found[1]) == 0:
        raise ValueError(f"{text!r} is not a rate; write one like 50/s, 600/m or 1000/h")
    return float(found[1]) / _SECONDS[found[2] or "s"]


class RateLimit:
    """Spaces items evenly, so that at most `rate` a second pass."""

    def __init__(
        self, rate: float, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._rate, self._clock, self._sleep = rate, clock, sleep
        self._due = clock()

    def wait(self, count: int) -> None:
        """Waits until the first of the next `count` items is due."""
        now = self._clock()
        self._due = max(self._due, now - _CATCH_UP_S)
        if self._due > now:
            self._sleep(self._due - now)
        self._due += count / self._rate

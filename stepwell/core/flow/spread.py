"""Spreads starts evenly over time: the generic cell rate algorithm, as a virtual scheduling algorithm.

Source: ITU-T I.371, annex A. The state is one number, the theoretical arrival time of the next start, in ms since the
epoch. Without a burst, two starts are at least `period_ms / limit` apart.
"""

from __future__ import annotations

from typing import NamedTuple


class Rate(NamedTuple):
    """`limit` starts in each `period_ms`, and `burst` further ones after a time without starts."""

    limit: int
    period_ms: int
    burst: int = 0

    @property
    def interval_ms(self) -> float:
        """The time between two starts without a burst."""
        return self.period_ms / self.limit

    def earliest(self, theoretical: float) -> float:
        """The earliest time of the next start."""
        return theoretical - self.burst * self.interval_ms

    def after(self, theoretical: float, now: int) -> float:
        """The theoretical arrival time after a start at `now`, which must not be earlier than `earliest`."""
        return max(theoretical, now) + self.interval_ms

    def converted(self, theoretical: float, interval_ms: float, now: int) -> float:
        """The theoretical arrival time under this rate, from one that was computed with another interval."""
        return theoretical if theoretical <= now else now + (theoretical - now) * self.interval_ms / interval_ms

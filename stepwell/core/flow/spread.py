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

    def earliest(self, theoretical: float) -> float:
        """The earliest time of the next start."""
        return theoretical - self.burst * self.period_ms / self.limit

    def after(self, theoretical: float, now: int) -> float:
        """The theoretical arrival time after a start at `now`, which must not be earlier than `earliest`."""
        return max(theoretical, now) + self.period_ms / self.limit

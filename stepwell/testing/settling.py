"""Waiting in tests until a platform is settled: whatever is still open waits for time, events or people."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable

from stepwell.testing.platform import PATIENCE_S

_SHORT_S = 0.2


class Settling(ABC):
    """Implements `settle` of `platform.Stepwell`, and the waiting before a run or an event is shown."""

    _held_up: frozenset[Hashable] = frozenset()

    @abstractmethod
    def _settle(self, within_s: float) -> bool:
        """Waits until the platform is settled. Returns False if it is not after this many seconds of real time."""

    @abstractmethod
    def _running(self) -> frozenset[Hashable]:
        """Identifies the step attempts that run now."""

    def settle(self) -> None:
        assert self._settle(3 * PATIENCE_S), "the platform does not settle: steps or messages are still being processed"

    def _settle_to_show(self) -> None:
        """Settles, but does not wait long a second time for the same steps if they were still running the last time."""
        running = self._running()
        if not self._settle(_SHORT_S if running and running <= self._held_up else 3 * PATIENCE_S):
            self._held_up = self._running()

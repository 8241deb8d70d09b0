"""When a test looks at something: once nothing moves any more but what waits for time, events or people."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable

from stepwell.testing.platform import PATIENCE_S

_SHORT_S = 0.2


class Settling(ABC):
    """The word `settle` of `platform.Stepwell`, and what others do before they show something."""

    _held_up: frozenset[Hashable] = frozenset()

    @abstractmethod
    def _settle(self, within_s: float) -> bool:
        """Whether nothing moves any more, within this real time."""

    @abstractmethod
    def _running(self) -> frozenset[Hashable]:
        """The attempts of steps that run now."""

    def settle(self) -> None:
        assert self._settle(3 * PATIENCE_S), "things never stop moving"

    def _settle_to_show(self) -> None:
        """The same, but steps that run on and on are shown so, and are not waited for twice."""
        running = self._running()
        if not self._settle(_SHORT_S if running and running <= self._held_up else 3 * PATIENCE_S):
            self._held_up = self._running()

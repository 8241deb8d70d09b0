"""Limits of one batch: how much it commits at once, and how long it may keep the event loop from answering requests."""

from __future__ import annotations

import time
from collections.abc import Iterable

from stepwell.local.store.unrouted import Unrouted
from stepwell.platform import Route

SLICE_S = 0.005  # of work, after which requests are answered
AT_ONCE = 50  # events, facts and waits between two checks of the clock
_REST = 2  # pieces: a batch that has no more than this left finishes it


class BatchPace:
    """Implements `platform.Pace` for one batch, which ends after `most` facts or `seconds` of this thread's CPU time.

    CPU time is used so that a busy machine does not make batches smaller; each batch has a fixed cost. To read it takes
    the kernel as long as a write, and most batches are short. So it is read only after half of the time has passed.
    """

    def __init__(self, unrouted: Unrouted, most: int, seconds: float) -> None:
        self._unrouted, self._most = unrouted, most
        now = time.perf_counter()
        self._looks_from, self._latest = now + seconds / 2, now + seconds
        self._ends: float | None = None  # in this thread's CPU time
        self._is_granted = False

    @property
    def at_once(self) -> int:
        return AT_ONCE

    @property
    def is_over(self) -> bool:
        """Whether the batch has done enough."""
        return self._most <= 0 or self._is_late()

    def _is_late(self) -> bool:
        if self._ends is not None:
            return time.thread_time() > self._ends
        now = time.perf_counter()
        if now < self._looks_from:
            return False
        self._ends = time.thread_time() + self._latest - now
        return now >= self._latest

    def grant(self) -> None:
        """Allows the next piece, however much the batch has done."""
        self._is_granted = True

    def count(self, done: int) -> None:
        self._most -= done

    def is_enough(self, left: float) -> bool:
        is_granted, self._is_granted = self._is_granted, False
        return not is_granted and left > _REST * AT_ONCE and self.is_over

    def must_wait(self, name: str) -> bool:
        return name in self._unrouted

    def leave(self, routes: Iterable[Route]) -> None:
        self._unrouted.leave(routes)

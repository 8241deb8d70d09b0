"""Slots limit how many attempts run at a time; other attempts are queued.

Functions take turns. Within a function (and a key of its limits), attempts of the earliest run come first: so runs that
have begun end before others begin, and none waits forever.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple

from stepwell.platform import AttemptId

DEFAULT_HTTP_SLOTS = 256  # calls of URLs at a time


class Place(NamedTuple):
    """The place of an attempt in a queue. Functions take turns, then keys of a function's limits; within a key, the
    lowest `rank` comes first, then the lowest `order` of the run."""

    function_id: str
    order: int
    rank: int = 0
    key: Hashable = None


class FairQueue:
    """A queue of attempts in which functions take turns, and the keys of each function's limits."""

    def __init__(self) -> None:
        # By function, then by key, the next in turn first; each a heap ordered by rank, run, and arrival.
        self._queues: OrderedDict[str, OrderedDict[Hashable, list[tuple[int, int, int, AttemptId]]]] = OrderedDict()
        self._numbers = count()
        self.queued: set[AttemptId] = set()  # read on the hot path, where a method would cost too much

    def __len__(self) -> int:
        return len(self.queued)

    def add(self, place: Place, attempt_id: AttemptId) -> None:
        """Queues an attempt; twice is harmless."""
        if attempt_id not in self.queued:
            self.queued.add(attempt_id)
            function_id, order, rank, key = place
            keys = self._queues.get(function_id)
            if keys is None:
                keys = self._queues[function_id] = OrderedDict()
            heappush(keys.setdefault(key, []), (rank, order, next(self._numbers), attempt_id))

    def pop(self) -> AttemptId:
        """Removes and returns the next attempt."""
        function_id, keys = self._queues.popitem(last=False)
        key, queue = keys.popitem(last=False)
        *_, attempt_id = heappop(queue)
        self.queued.discard(attempt_id)
        if queue:
            keys[key] = queue  # the last in turn
        if keys:
            self._queues[function_id] = keys
        return attempt_id

    def clear(self) -> None:
        self._queues.clear()
        self.queued.clear()


class Slots:
    def __init__(self, size: int) -> None:
        self._size = size
        self._taken = 0  # by attempts that are running or about to be
        self._queue = FairQueue()

    @property
    def free(self) -> int:
        """The number of attempts that could start now; 0 if some are queued, since these come first."""
        return 0 if self._queue.queued else max(0, self._size - self._taken)

    def take(self) -> None:
        self._taken += 1

    def release(self) -> None:
        self._taken -= 1

    def queue(self, place: Place, attempt_id: AttemptId) -> None:
        """Queues an attempt; twice is harmless."""
        self._queue.add(place, attempt_id)

    def take_queued(self, most: int) -> list[AttemptId]:
        """Removes and returns queued attempts, as many as get a free slot, at most `most`. Functions take turns."""
        taken: list[AttemptId] = []
        while self.can_take and len(taken) < most:
            self._taken += 1
            taken.append(self._queue.pop())
        return taken

    @property
    def can_take(self) -> bool:
        """Whether an attempt is queued and a slot is free."""
        return bool(self._queue.queued) and self._taken < self._size

    @property
    def has_queued(self) -> bool:
        return bool(self._queue.queued)

    def close(self) -> None:
        """Admits no more attempts: new ones stay queued."""
        self._size = 0

    def reset(self, taken: int) -> None:
        """Forgets the queue, and sets the number of taken slots."""
        self._queue.clear()
        self._taken = taken

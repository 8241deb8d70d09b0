"""Buckets and lanes of limits: who has a permit, and who waits for one.

A bucket is one key of one limit. A lane is the queue of the starts that need permits of the same buckets. A lane waits
in one bucket at a time, the first without room. So what a change of a bucket costs depends on the lanes that wait in
it, and not on how many starts are queued in them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from stepwell.core.flow.spread import Rate
from stepwell.core.plan import Limit
from stepwell.core.run.permits import Permit
from stepwell.local.store.limit_rows import BucketKey
from stepwell.platform import AttemptId


class Item(NamedTuple):
    """A start that needs permits. The lowest `rank`, then the lowest `order`, comes first. `start` is called when it is
    admitted."""

    id: AttemptId
    permits: Sequence[Permit]
    rank: int
    order: int
    start: Callable[[], None]


class Waiter:
    """A start that waits, and since when (ms since the epoch)."""

    __slots__ = ("is_gone", "item", "lane", "since")

    def __init__(self, item: Item, lane: Lane, since: int) -> None:
        self.item, self.lane, self.since = item, lane, since
        self.is_gone = False


class Bucket:
    """One key of a limit. `current` returns a limit with the values that apply now."""

    def __init__(self, permit: Permit, current: Callable[[Limit], Limit]) -> None:
        self.permit, self._current = permit, current
        self.holders: set[Hashable] = set()
        self.lanes: OrderedDict[Lane, None] = OrderedDict()  # that wait here, the next in turn first

    @property
    def key(self) -> BucketKey:
        return self.permit.limit.id, self.permit.key

    @property
    def limit(self) -> Limit:
        """The limit with the values that apply now."""
        return self._current(self.permit.limit)

    def room_at(self, now: int) -> float | None:
        """When there is room for another start, in ms since the epoch; None: when a holder ends."""
        limit = self.limit.limit
        return now if limit is None or len(self.holders) < limit else None

    def take(self, holder: Hashable, now: int) -> None:
        self.holders.add(holder)

    def replace(self, holder: Hashable, by: Hashable) -> None:
        """Passes a permit on."""
        self.holders.discard(holder)
        self.holders.add(by)

    def release(self, holder: Hashable) -> None:
        self.holders.discard(holder)

    def is_unused(self, now: int) -> bool:
        return not (self.holders or self.lanes)


class Throttle(Bucket):
    """One key of a throttle. A start uses up its permit, so there are no holders.

    `theoretical`: the stored state of `Rate`. `store` is called with each new one.
    """

    def __init__(
        self,
        permit: Permit,
        current: Callable[[Limit], Limit],
        theoretical: float,
        store: Callable[[BucketKey, float], None],
    ) -> None:
        super().__init__(permit, current)
        self._theoretical, self._store = theoretical, store
        self.is_timed = False  # whether `Admission` looks at it when it has room again

    def room_at(self, now: int) -> float:
        limit = self.limit
        return max(now, Rate(limit.limit or 1, limit.period_ms, limit.burst).earliest(self._theoretical))

    def take(self, holder: Hashable, now: int) -> None:
        limit = self.limit
        self._theoretical = Rate(limit.limit or 1, limit.period_ms, limit.burst).after(self._theoretical, now)
        self._store(self.key, self._theoretical)

    def move_back(self, by_ms: int, now: int) -> None:
        """Corrects the state after the clock was set back. The stored state is corrected in the same way."""
        if self._theoretical > now:
            self._theoretical -= by_ms

    def replace(self, holder: Hashable, by: Hashable) -> None:
        pass

    def is_unused(self, now: int) -> bool:
        return not self.lanes and self._theoretical <= now


class Lane:
    """The starts that wait for permits of the same buckets. `number` identifies it. `permits` are in the one order of
    all lanes, throttles last.

    `bucket`: where it waits. `held`: buckets in which the next start has a permit already. `moves`: how often the lane
    has moved to another bucket since it last admitted a start.
    """

    def __init__(self, number: int, permits: Sequence[Permit]) -> None:
        self.number, self.permits = number, permits
        self.bucket: Bucket | None = None
        self.held: list[Bucket] = []
        self.moves = 0
        self.size = 0
        self._queue: list[tuple[int, int, int, Waiter]] = []

    def add(self, waiter: Waiter, number: int) -> None:
        heappush(self._queue, (waiter.item.rank, waiter.item.order, number, waiter))
        self.size += 1

    def pop(self) -> Waiter:
        """Removes and returns the next start."""
        while True:
            *_, waiter = heappop(self._queue)
            if not waiter.is_gone:
                self.size -= 1
                return waiter

    def drop(self, waiter: Waiter) -> None:
        """Removes a start that is not wanted any more."""
        waiter.is_gone = True
        self.size -= 1

    def oldest(self) -> int | None:
        """Since when the start that has waited longest waits, in ms since the epoch."""
        return min((waiter.since for *_, waiter in self._queue if not waiter.is_gone), default=None)

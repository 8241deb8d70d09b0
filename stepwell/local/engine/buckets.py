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
from stepwell.local.store.limit_rows import BucketKey, ThrottleState
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

    @property
    def waiting(self) -> int:
        """The number of starts that wait here."""
        return sum(lane.size for lane in self.lanes)

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

    `state`: the stored state. `store` is called with each new one.
    """

    def __init__(
        self,
        permit: Permit,
        current: Callable[[Limit], Limit],
        state: ThrottleState,
        store: Callable[[BucketKey, ThrottleState], None],
    ) -> None:
        super().__init__(permit, current)
        self._state, self._store = state, store
        self.is_timed = False  # whether `Admission` looks at it when it has room again

    @property
    def _rate(self) -> Rate:
        limit = self.limit
        return Rate(limit.limit or 1, limit.period_ms, limit.burst)

    def room_at(self, now: int) -> float:
        return max(now, self._rate.earliest(self._state.theoretical))

    def take(self, holder: Hashable, now: int) -> None:
        rate = self._rate
        self._state = ThrottleState(rate.after(self._state.theoretical, now), rate.interval_ms)
        self._store(self.key, self._state)

    def convert(self, now: int) -> None:
        """Converts the state if the rate has changed."""
        rate, (theoretical, interval_ms) = self._rate, self._state
        if interval_ms and interval_ms != rate.interval_ms:
            self._state = ThrottleState(rate.converted(theoretical, interval_ms, now), rate.interval_ms)
            self._store(self.key, self._state)

    def move_back(self, by_ms: int, now: int) -> None:
        """Corrects the state after the clock was set back. The stored state is corrected in the same way."""
        theoretical, interval_ms = self._state
        if theoretical > now:
            self._state = ThrottleState(theoretical - by_ms, interval_ms)

    def replace(self, holder: Hashable, by: Hashable) -> None:
        pass

    def is_unused(self, now: int) -> bool:
        return not self.lanes and self._state.theoretical <= now


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

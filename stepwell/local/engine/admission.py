"""Admits the starts of runs and attempts that limits delay: as many as the limits allow, and lanes in turns.

A start needs a permit of each of its limits, and gets all of them at once, so that it holds nothing while it waits.
When a lane has moved between buckets a few times without an admission, its next start keeps the permits that it gets.
All lanes get them in the same order. So none waits forever, and no two wait for each other.

All of it is in memory, and follows from stored runs: after a restart, `hold` is called for what runs, `request` for
what is queued, and then `open`. Only the state of throttles is stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Protocol

from stepwell.core.plan import Limit
from stepwell.core.run.permits import Permit
from stepwell.local.engine.buckets import Bucket, Item, Lane, Throttle, Waiter
from stepwell.local.store.limit_rows import BucketKey, ThrottleState
from stepwell.platform import AttemptId

_MOST_MOVES = 3


class Rows(Protocol):
    """Stores, with the current batch, the state of throttles, and what others read about waiting starts."""

    def throttle(self, key: BucketKey) -> ThrottleState: ...

    def set_throttle(self, key: BucketKey, state: ThrottleState) -> None: ...

    def waits(self, waiter: Waiter) -> None: ...

    def waits_no_more(self, waiter: Waiter) -> None: ...

    def moved(self, lane: Lane) -> None:
        """The lane waits in another bucket, or is empty."""


class Admission:
    """`current` returns a limit with the values that apply now. `clock` returns the time in ms since the epoch."""

    def __init__(self, rows: Rows, current: Callable[[Limit], Limit], clock: Callable[[], int]) -> None:
        self._rows, self._current, self._clock = rows, current, clock
        self._buckets: dict[BucketKey, Bucket] = {}
        self._lanes: dict[tuple[BucketKey, ...], Lane] = {}  # those with waiting starts
        self._holding: dict[AttemptId, Sequence[Permit]] = {}  # admitted starts
        self._waiting: dict[AttemptId, Waiter] = {}
        self._due: list[tuple[float, int, Throttle]] = []  # throttles in which lanes wait
        self._numbers = count(1)
        self._is_open = False

    # --- starts ----------------------------------------------------------------------------------------------------

    def request(self, item: Item) -> None:
        """Admits a start now or later. Requesting it twice is harmless."""
        if item.id in self._holding or item.id in self._waiting:
            return
        keys, permits = _in_order(item.permits)
        lane, now = self._lanes.get(keys), self._clock()
        if lane is None:
            lane = Lane(next(self._numbers), permits)
            full = self._blocked_by(lane, now) if self._is_open else self._bucket(permits[0])
            if full is None:
                self._admit(item, lane)
                return
            self._lanes[keys] = lane
            self._wait(lane, full)
        waiter = self._waiting[item.id] = Waiter(item, lane, now)
        lane.add(waiter, next(self._numbers))
        self._rows.waits(waiter)

    def hold(self, item: Item) -> None:
        """Gives a start that was admitted before a restart its permits again, even if that exceeds a limit. Throttles
        have counted it already."""
        _, permits = _in_order(item.permits)
        self._holding[item.id] = permits
        for permit in permits:
            if not permit.limit.period_ms:
                self._bucket(permit).take(item.id, 0)

    def release(self, item_id: AttemptId) -> None:
        """The run or attempt has ended, or was not started: its permits are free."""
        for permit in self._holding.pop(item_id, ()):
            bucket = self._bucket(permit)
            bucket.release(item_id)
            self._wake(bucket)

    def withdraw(self, item_id: AttemptId) -> None:
        """The start is not wanted any more, if it waits."""
        waiter = self._waiting.pop(item_id, None)
        if waiter is not None:
            waiter.lane.drop(waiter)
            self._rows.waits_no_more(waiter)
            if not waiter.lane.size:
                self._close(waiter.lane)

    # --- time and settings -----------------------------------------------------------------------------------------

    @property
    def next_due(self) -> int | None:
        """When a throttle admits the next start, in ms since the epoch; None: no start waits for one."""
        if not self._is_open:
            return None
        while self._due and not self._due[0][2].lanes:
            heappop(self._due)[2].is_timed = False
        return math.ceil(self._due[0][0]) if self._due else None

    def admit_due(self) -> None:
        """Admits the starts for which throttles have room now."""
        now = self._clock()
        while self._is_open and self._due and self._due[0][0] <= now:
            throttle = heappop(self._due)[2]
            throttle.is_timed = False
            self._wake(throttle)

    def look_again(self) -> None:
        """Looks at all waiting starts again, because limits may have changed."""
        if self._is_open:
            for _, _, throttle in self._due:
                throttle.is_timed = False
            self._due.clear()
            for bucket in list(self._buckets.values()):
                if isinstance(bucket, Throttle):
                    bucket.convert(self._clock())
                self._wake(bucket)

    def move_back(self, by_ms: int) -> None:
        """Corrects throttles after the clock was set back."""
        now = self._clock()
        for bucket in self._buckets.values():
            if isinstance(bucket, Throttle):
                bucket.move_back(by_ms, now)
        self.look_again()

    def open(self) -> None:
        """Begins to admit starts: all holders are known."""
        self._is_open = True
        self.look_again()

    def reset(self, keep: Container[AttemptId]) -> None:
        """Forgets what waits, all admitted starts except `keep`, and the state of throttles. Admits nothing until
        `open`."""
        self._is_open = False
        holding = {item_id: permits for item_id, permits in self._holding.items() if item_id in keep}
        for forgotten in (self._buckets, self._lanes, self._holding, self._waiting, self._due):
            forgotten.clear()
        for item_id, permits in holding.items():
            self.hold(Item(item_id, permits, 0, 0, lambda: None))

    # --- reading ---------------------------------------------------------------------------------------------------

    @property
    def buckets(self) -> Iterator[Bucket]:
        """All keys of limits that are in use. Those that have no effect any more are dropped."""
        now = self._clock()
        for bucket in list(self._buckets.values()):
            if bucket.is_unused(now):
                del self._buckets[bucket.key]
            else:
                yield bucket

    # --- lanes -----------------------------------------------------------------------------------------------------

    def _bucket(self, permit: Permit) -> Bucket:
        key = permit.limit.id, permit.key
        bucket = self._buckets.get(key)
        if bucket is None:
            if permit.limit.period_ms:
                bucket = Throttle(permit, self._current, self._rows.throttle(key), self._rows.set_throttle)
                bucket.convert(self._clock())
            else:
                bucket = Bucket(permit, self._current)
            self._buckets[key] = bucket
        return bucket

    def _blocked_by(self, lane: Lane, now: int) -> Bucket | None:
        """Takes the permits for the next start of a lane, in the lane's name, or returns the first bucket without
        room."""
        buckets = map(self._bucket, lane.permits)
        missing = [bucket for bucket in buckets if bucket not in lane.held]
        if lane.moves < _MOST_MOVES:
            full = next((bucket for bucket in missing if bucket.room_at(now) != now), None)
            if full is not None:
                return full
        for bucket in missing:
            if bucket.room_at(now) != now:
                return bucket
            bucket.take(lane, now)
            lane.held.append(bucket)
        return None

    def _admit(self, item: Item, lane: Lane) -> None:
        """Passes the lane's permits on to a start."""
        for bucket in lane.held:
            bucket.replace(lane, item.id)
        lane.held, lane.moves = [], 0
        self._holding[item.id] = lane.permits
        item.start()

    def _wait(self, lane: Lane, bucket: Bucket) -> None:
        lane.bucket = bucket
        bucket.lanes[lane] = None
        self._rows.moved(lane)
        self._time(bucket)

    def _close(self, lane: Lane) -> None:
        """The lane is empty."""
        del self._lanes[_keys(lane.permits)]
        if lane.bucket is not None:
            bucket, lane.bucket = lane.bucket, None
            bucket.lanes.pop(lane, None)
            self._wake(bucket)
        self._rows.moved(lane)
        held, lane.held = lane.held, []
        for bucket in held:
            bucket.release(lane)
            self._wake(bucket)

    def _time(self, bucket: Bucket) -> None:
        """Notes when to look at a throttle in which lanes wait."""
        if isinstance(bucket, Throttle) and bucket.lanes and not bucket.is_timed:
            bucket.is_timed = True
            heappush(self._due, (bucket.room_at(0), next(self._numbers), bucket))

    def _wake(self, bucket: Bucket) -> None:
        """Admits waiting starts while there is room, lanes in turns."""
        now = self._clock()
        while self._is_open and bucket.lanes and bucket.room_at(now) == now:
            lane, _ = bucket.lanes.popitem(last=False)
            full = self._blocked_by(lane, now)
            if full is not None:
                lane.moves += 1
                self._wait(lane, full)
                continue
            waiter = lane.pop()
            del self._waiting[waiter.item.id]
            self._rows.waits_no_more(waiter)
            if lane.size:
                bucket.lanes[lane] = None  # the last in turn
            self._admit(waiter.item, lane)
            if not lane.size:
                self._close(lane)
        self._time(bucket)
        if bucket.is_unused(now):
            self._buckets.pop(bucket.key, None)


def _in_order(permits: Sequence[Permit]) -> tuple[tuple[BucketKey, ...], Sequence[Permit]]:
    """The permits, each once, in the one order of all lanes, and the keys of their buckets."""
    by_key = {_key(permit): permit for permit in sorted(permits, key=_order)}
    return tuple(by_key), list(by_key.values())


def _keys(permits: Sequence[Permit]) -> tuple[BucketKey, ...]:
    return tuple(map(_key, permits))


def _key(permit: Permit) -> BucketKey:
    return permit.limit.id, permit.key


def _order(permit: Permit) -> tuple[bool, str, bytes]:
    return bool(permit.limit.period_ms), permit.limit.id, permit.key

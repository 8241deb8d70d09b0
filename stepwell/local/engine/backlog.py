"""Work that waits for a batch, in order: events of requests, facts and calls, and futures that wait for them.

A batch takes one piece after another until it has done enough. It takes all events of a request or none, so a request
is accepted as a whole or not at all. Futures resolve when the work is durable.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from stepwell.local.store.batch import LocalBatch
from stepwell.platform import IncomingEvent, RunFact

T = TypeVar("T")
Call = Callable[[LocalBatch], None]


class Line(Generic[T]):
    """Items of one kind in order, and the futures that wait for them."""

    __slots__ = ("_items", "_put", "_taken", "waiting")

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._put = self._taken = 0
        self.waiting: deque[tuple[int, asyncio.Future[None]]] = deque()  # (items that must be taken first, future)

    def __bool__(self) -> bool:
        return bool(self._items or self.waiting)

    @property
    def first(self) -> T | None:
        return self._items[0] if self._items else None

    def add(self, items: Iterable[T]) -> None:
        before = len(self._items)
        self._items.extend(items)
        self._put += len(self._items) - before

    def add_one(self, item: T) -> None:
        self._items.append(item)
        self._put += 1

    def wait(self, future: asyncio.Future[None]) -> None:
        """Resolves `future` when all current items are durable."""
        self.waiting.append((self._put, future))

    def take(self, most: int) -> list[T]:
        """Removes and returns the first items, at most `most`."""
        if not self._items:
            return []
        taken = [self._items.popleft() for _ in range(min(most, len(self._items)))]
        self._taken += len(taken)
        return taken

    def give_back(self, items: Sequence[T]) -> None:
        """Puts back the items of a batch that could not be written, at the front."""
        self._items.extendleft(reversed(items))
        self._taken -= len(items)

    def reached(self) -> list[asyncio.Future[None]]:
        """Removes and returns the futures whose items have all been taken."""
        futures = []
        while self.waiting and self.waiting[0][0] <= self._taken:
            futures.append(self.waiting.popleft()[1])
        return futures


class Backlog:
    def __init__(self) -> None:
        self.requests: Line[Sequence[IncomingEvent]] = Line()
        self.facts: Line[RunFact] = Line()
        self.calls: Line[Call] = Line()  # work that needs the transaction, and takes no longer than a batch may take

    def __bool__(self) -> bool:
        return bool(self.requests or self.facts or self.calls)

    def take_arrivals(self, enough: int, largest: float = math.inf) -> list[IncomingEvent]:
        """The events of the first requests, at least one request, until there are `enough` events. Stops before a
        request with more than `largest` events."""
        arrivals: list[IncomingEvent] = []
        while len(arrivals) < enough and (request := self.requests.first) is not None and len(request) <= largest:
            arrivals += request
            self.requests.take(1)
        return arrivals

    def reached(self) -> list[asyncio.Future[None]]:
        """Removes and returns the futures whose items the batches so far have taken."""
        return [future for line in (self.requests, self.facts, self.calls) if line.waiting for future in line.reached()]

"""What waits for a batch, in the order it came: requests' events, facts and other work; and who waits until it is
durable.

A batch takes a bounded part of it, and all events of a request or none: so a request is accepted whole or not at all.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from stepwell.core.events import MAX_EVENTS
from stepwell.core.plain_data import immutable
from stepwell.engine import Arrival, RunFact

T = TypeVar("T")
Call = Callable[[int], None]

_MOST_EVENTS = MAX_EVENTS  # of a batch: at least one request fits
_MOST_FACTS = 1000
_MOST_CALLS = 10


@immutable
class Taken:
    """What one batch does. `waiting`: those who are told once it is durable."""

    arrivals: list[Arrival]
    facts: list[RunFact]
    calls: list[Call]
    waiting: list[asyncio.Future[None]]


@dataclass(slots=True)
class _Counts:
    requests: int = 0
    facts: int = 0
    calls: int = 0

    def reach(self, requests: int, facts: int, calls: int) -> bool:
        return self.requests >= requests and self.facts >= facts and self.calls >= calls


class Backlog:
    def __init__(self) -> None:
        self._requests: deque[Sequence[Arrival]] = deque()
        self._events = 0  # of all requests
        self._facts: deque[RunFact] = deque()
        self._calls: deque[Call] = deque()
        self._waiting: deque[tuple[int, int, int, asyncio.Future[None]]] = deque()  # until so much has been taken
        self._put, self._taken = _Counts(), _Counts()

    def __bool__(self) -> bool:
        return bool(self._requests or self._facts or self._calls or self._waiting)

    def add_events(self, arrivals: Sequence[Arrival]) -> None:
        """Events that one batch accepts."""
        if arrivals:
            self._requests.append(arrivals)
            self._events += len(arrivals)
            self._put.requests += 1

    def add_facts(self, facts: Iterable[RunFact]) -> None:
        before = len(self._facts)
        self._facts.extend(facts)
        self._put.facts += len(self._facts) - before

    def add_call(self, call: Call) -> None:
        """Work that needs the transaction, such as a rerun; it must take no longer than a batch may."""
        self._calls.append(call)
        self._put.calls += 1

    def wait_for_all(self, future: asyncio.Future[None]) -> None:
        """Be told when all that is in here now is durable."""
        self._waiting.append((self._put.requests, self._put.facts, self._put.calls, future))

    def take(self) -> Taken:
        """What the next batch does."""
        if self._events <= _MOST_EVENTS and len(self._facts) <= _MOST_FACTS and len(self._calls) <= _MOST_CALLS:
            return self._take_all()
        arrivals: list[Arrival] = []
        while self._requests and (not arrivals or len(arrivals) + len(self._requests[0]) <= _MOST_EVENTS):
            arrivals += self._requests.popleft()
            self._taken.requests += 1
        self._events -= len(arrivals)
        facts = _first(self._facts, _MOST_FACTS)
        calls = _first(self._calls, _MOST_CALLS)
        self._taken.facts += len(facts)
        self._taken.calls += len(calls)
        waiting = []
        while self._waiting and self._taken.reach(*self._waiting[0][:3]):
            waiting.append(self._waiting.popleft()[3])
        return Taken(arrivals, facts, calls, waiting)

    def _take_all(self) -> Taken:
        """As nearly every batch does, so it is worth a faster way."""
        arrivals = [arrival for request in self._requests for arrival in request]
        taken = Taken(arrivals, list(self._facts), list(self._calls), [future for *_, future in self._waiting])
        for queue in (self._requests, self._facts, self._calls, self._waiting):
            queue.clear()
        self._events = 0
        self._taken = _Counts(self._put.requests, self._put.facts, self._put.calls)
        return taken

    def give_back(self, facts: Sequence[RunFact]) -> None:
        """Facts of a batch that could not be written: the next one takes them first."""
        self._facts.extendleft(reversed(facts))
        self._taken.facts -= len(facts)


def _first(queue: deque[T], most: int) -> list[T]:
    if len(queue) > most:
        return [queue.popleft() for _ in range(most)]
    found = list(queue)
    queue.clear()
    return found

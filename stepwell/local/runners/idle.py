"""Idle workers: which one is used next, and which one is stopped if they are too many or too large.

The worker with the least recent use is stopped. If all are used equally, as by handlers that take turns, the newest is
stopped: the one that has been idle for longest is needed next.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

_HALF_LIFE_S = 60.0  # after this time a use counts half
_REPLACE_FACTOR = 1.25  # how many times more often a new worker must be used to replace another one
_LEAST_USES = 0.01  # smaller values are forgotten
_MOST_REMEMBERED = 4096
_LANDMARK_S = 300.0  # after this time all values are rescaled, so that they stay small

W = TypeVar("W", bound=Hashable)


@dataclass(slots=True, eq=False)
class Place:
    """The position of a worker among those of a key, and how often it is used. The lowest `number` is used first."""

    key: Hashable
    number: int
    uses: float = 0.0  # weighted uses, relative to the landmark
    size: int = 0  # bytes
    measured_at: float = -math.inf


class IdleWorkers(Generic[W]):
    """Idle workers by key. All times are in seconds of one monotonic clock."""

    def __init__(self, most: int, most_bytes: int, always: int) -> None:
        """`most` workers may be idle. Beyond `always` of them, all together may have at most `most_bytes`."""
        self.most, self.always, self._most_bytes = most, always, most_bytes
        self._idle: dict[W, tuple[Place, float]] = {}  # with the time since when, longest first
        self._by_key: dict[Hashable, list[W]] = {}
        self._places: dict[Hashable, list[Place]] = {}  # of all workers, idle or not
        self._freed_uses: dict[tuple[Hashable, int], float] = {}  # uses of places without a worker
        self._landmark: float | None = None

    def __contains__(self, worker: W) -> bool:
        return worker in self._idle

    def __len__(self) -> int:
        return len(self._idle)

    def open_place(self, key: Hashable) -> Place:
        """A place for a new worker. It inherits the uses of the worker that had the place before."""
        places = self._places.setdefault(key, [])
        taken = {place.number for place in places}
        number = next(number for number in itertools.count() if number not in taken)
        place = Place(key, number, self._freed_uses.pop((key, number), 0.0))
        places.append(place)
        return place

    def close_place(self, place: Place) -> None:
        """Frees the place of a worker that is gone or will be. Safe to call twice."""
        places = self._places.get(place.key, [])
        if place not in places:
            return
        places.remove(place)
        if not places:
            del self._places[place.key]
        self._freed_uses[place.key, place.number] = place.uses

    def find(self, key: Hashable) -> W | None:
        """The idle worker to use next for this key. It stays idle until `remove`."""
        workers = self._by_key.get(key)
        if not workers:
            return None
        return workers[0] if len(workers) == 1 else min(workers, key=lambda worker: self._idle[worker][0].number)

    def add(self, worker: W, place: Place, now: float) -> None:
        """A worker has finished a piece of work, and is idle."""
        place.uses += self._weight(now)
        self._idle[worker] = place, now
        self._by_key.setdefault(place.key, []).append(worker)

    def remove(self, worker: W) -> None:
        place, _ = self._idle.pop(worker)
        same = self._by_key[place.key]
        same.remove(worker)
        if not same:
            del self._by_key[place.key]

    @property
    def are_too_many(self) -> bool:
        return len(self._idle) > self.most

    def surplus(self, newest: W, now: float) -> Iterator[W]:
        """The workers to stop, one after the other; the caller removes each before it asks for the next. `newest` is
        the worker whose use or size changed last."""
        while self.are_too_many or (len(self._idle) > self.always and self._size() > self._most_bytes):
            yield self._least_used(newest, now)

    def _size(self) -> int:
        return sum(place.size for place, _ in self._idle.values())

    def _least_used(self, newest: W, now: float) -> W:
        least = min((value for value in self._idle if value is not newest), key=lambda value: self._idle[value][0].uses)
        if newest not in self._idle:
            return least
        limit = self._idle[least][0].uses * _REPLACE_FACTOR + self._weight(now)
        return least if self._idle[newest][0].uses > limit else newest

    def waiting_since(self, moment: float) -> list[W]:
        """Workers that have been idle since then or longer."""
        return [worker for worker, (_, since) in self._idle.items() if since <= moment]

    def _weight(self, now: float) -> float:
        """The weight of one use now. Weights grow with time, so that earlier uses fade."""
        if self._landmark is None:
            self._landmark = now
        if now - self._landmark > _LANDMARK_S:
            self._fade(math.exp2((self._landmark - now) / _HALF_LIFE_S))
            self._landmark = now
        return math.exp2((now - self._landmark) / _HALF_LIFE_S)

    def _fade(self, factor: float) -> None:
        for places in self._places.values():
            for place in places:
                place.uses *= factor
        past = {pair: uses * factor for pair, uses in self._freed_uses.items() if uses * factor > _LEAST_USES}
        self._freed_uses = dict(heapq.nlargest(_MOST_REMEMBERED, past.items(), key=lambda item: item[1]))

"""The starts that count for one key of a `rate_limit`, packed into items of less than 1 KB.

The starts of a key are numbered from 0. The main item has the newest 20 to 39 starts. Every 20 starts, the oldest 20
of them become a chunk, an item of its own. A start is decided by the one that is `limit` places before it. So a claim
reads and writes the main item, whatever the limit is, and every 20th claim one chunk more.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

CHUNK = 20  # starts; a main item with 39 of them and a chunk of times has about 850 bytes, less than a write unit
_TIME, _RUN = 6, 8  # bytes
_ERASED = bytes(_RUN)
_HEAD = struct.Struct(">qqB")  # `first`, `older_number`, and the number of times in `older`


class StartOf(NamedTuple):
    """A start: the time in ms since the epoch, and a digest of the run's id."""

    at: int
    run: bytes


def digest_of(run_id: str) -> bytes:
    return hashlib.blake2b(run_id.encode(), digest_size=_RUN).digest()


def pack_starts(starts: Sequence[StartOf]) -> bytes:
    return b"".join(start.at.to_bytes(_TIME) + start.run for start in starts)


def unpack_starts(data: bytes) -> list[StartOf]:
    size = _TIME + _RUN
    return [StartOf(int.from_bytes(data[i : i + _TIME]), data[i + _TIME : i + size]) for i in range(0, len(data), size)]


@dataclass(frozen=True, slots=True)
class StartLog:
    """The main item. `first` is the number of the first start in `newest`, a multiple of `CHUNK`.

    `older` is a copy of the times in the chunk `older_number`, which decides the next starts. It is empty if that chunk
    was not stored, because the period of its starts was over.
    """

    first: int = 0
    newest: tuple[StartOf, ...] = ()
    older_number: int = -1
    older: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        return self.first + len(self.newest)

    @property
    def is_full(self) -> bool:
        """Whether the oldest starts must become a chunk before the log is stored."""
        return len(self.newest) == 2 * CHUNK

    def has(self, run: bytes) -> bool:
        return any(start.run == run for start in self.newest)

    def chunk_needed(self, limit: int) -> int | None:
        """The number of the chunk that decides the next start; None if it is none, or here already."""
        number = self.count - limit
        chunk = number // CHUNK
        return None if number < 0 or number >= self.first or chunk == self.older_number else chunk

    def with_chunk(self, number: int, starts: Sequence[StartOf]) -> StartLog:
        return replace(self, older_number=number, older=tuple(start.at for start in starts))

    def earlier(self, limit: int) -> int | None:
        """The time of the start `limit` places before the next one. None if there is none, or its period is over."""
        number = self.count - limit
        if number >= self.first:
            return self.newest[number - self.first].at
        if number >= 0 and self.older:
            return self.older[number % CHUNK]
        return None

    def add(self, now: int, run: bytes) -> StartLog:
        """The log with one more start. The times never decrease, even if the clocks of two Lambdas differ."""
        at = max(now, self.newest[-1].at) if self.newest else now
        return replace(self, newest=(*self.newest, StartOf(at, run)))

    def without_oldest(self) -> StartLog:
        return replace(self, first=self.first + CHUNK, newest=self.newest[CHUNK:])

    def without(self, run: bytes) -> StartLog:
        """The log without the start of a run."""
        return replace(self, newest=tuple(start for start in self.newest if start.run != run))

    def erased(self, run: bytes) -> StartLog:
        return replace(self, newest=tuple(erased(self.newest, run)))


def erased(starts: Iterable[StartOf], run: bytes) -> list[StartOf]:
    """The starts, without the digest of one run. Their times still count."""
    return [StartOf(start.at, _ERASED) if start.run == run else start for start in starts]


def starts_of_others(starts: Iterable[StartOf], since: int) -> Iterator[StartOf]:
    """The starts since a time that are not erased."""
    return (start for start in starts if start.run != _ERASED and start.at >= since)


def pack_log(log: StartLog) -> bytes:
    times = b"".join(at.to_bytes(_TIME) for at in log.older)
    return _HEAD.pack(log.first, log.older_number, len(log.older)) + times + pack_starts(log.newest)


def unpack_log(data: bytes) -> StartLog:
    first, older_number, count = _HEAD.unpack_from(data)
    begin = _HEAD.size + count * _TIME
    older = tuple(int.from_bytes(data[i : i + _TIME]) for i in range(_HEAD.size, begin, _TIME))
    return StartLog(first, tuple(unpack_starts(data[begin:])), older_number, older)

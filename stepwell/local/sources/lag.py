"""How far a source is behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from stepwell.core.sources.records import Record


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a source is behind: records that are not accepted yet, and the age of the oldest of them. None: unknown.

    `partitions`: the same for each partition of the source, such as `orders/0`, if the broker has partitions."""

    records: int | None = None
    seconds: float | None = None
    partitions: Mapping[str, Lag] = field(default_factory=dict)

    def with_waiting(self, waiting: Sequence[Record], now: int) -> Lag:
        """The lag of a source that has polled `waiting`, which are not accepted yet. `self`: what the broker says of
        the records behind these. If nothing is waiting, the broker had no further records."""
        counts = Counter(map(partition_of, waiting))
        oldest: dict[str, int] = {}
        for record in waiting:
            if record.at is not None:
                name = partition_of(record)
                oldest[name] = min(record.at, oldest.get(name, record.at))
        partitions = {
            name: Lag(_sum(lag.records, counts[name]), _age(lag, oldest.get(name), now, is_empty=not counts[name]))
            for name, lag in self.partitions.items()
        }
        first = min(oldest.values(), default=None)
        return Lag(_sum(self.records, len(waiting)), _age(self, first, now, is_empty=not waiting), partitions)


def partition_of(record: Record) -> str:
    """The name of a record's partition, such as `orders/0`; an empty text if there are no partitions."""
    place = record.place
    return f"{place['topic']}/{place['partition']}" if "partition" in place else ""


def total(partitions: Mapping[str, int]) -> Lag:
    """The lag of a source, from the number of records behind in each partition."""
    return Lag(sum(partitions.values()), None, {name: Lag(records) for name, records in partitions.items()})


def _sum(records: int | None, waiting: int) -> int | None:
    return None if records is None else records + waiting


def _age(lag: Lag, oldest: int | None, now: int, *, is_empty: bool) -> float | None:
    """The age of the oldest record in seconds. `oldest`: the time of the oldest one that is waiting."""
    ages: Iterable[float | None] = (lag.seconds, None if oldest is None else max(0.0, (now - oldest) / 1000))
    known = [age for age in ages if age is not None]
    return max(known) if known else 0.0 if is_empty and lag.records == 0 else None

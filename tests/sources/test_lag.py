"""Tests how far a source is behind, from what the broker says and what is polled and not accepted yet."""

from __future__ import annotations

from stepwell.core.sources.records import Record
from stepwell.local.sources.lag import Lag, total

NOW = 100_000


def record(partition: int, at: int | None) -> Record:
    return Record("id", b"{}", {}, {"topic": "orders", "partition": partition}, at)


def test_a_source_that_has_read_all_is_not_behind() -> None:
    assert Lag(0).with_waiting([], NOW) == Lag(0, 0.0)


def test_the_age_is_that_of_the_oldest_record_that_is_not_accepted() -> None:
    waiting = [Record("b", b"", at=NOW - 2000), Record("a", b"", at=NOW - 9000), Record("c", b"")]
    assert Lag(5).with_waiting(waiting, NOW) == Lag(8, 9.0)
    assert Lag(5, 3.0).with_waiting(waiting, NOW) == Lag(8, 9.0)
    assert Lag(5, 3.0).with_waiting([], NOW) == Lag(5, 3.0), "what the broker says of the oldest"
    assert Lag(0).with_waiting([Record("a", b"", at=NOW + 500)], NOW) == Lag(1, 0.0), "clocks differ"


def test_what_is_not_known_stays_unknown() -> None:
    assert Lag().with_waiting([], NOW) == Lag()
    assert Lag(3).with_waiting([], NOW) == Lag(3, None), "these came after the last poll"
    assert Lag(0).with_waiting([Record("a", b"")], NOW) == Lag(1, None), "the broker gives no time"


def test_each_partition_has_its_own_lag() -> None:
    waiting = [record(0, NOW - 4000), record(1, NOW - 6000), record(1, NOW - 5000)]
    lag = total({"orders/0": 7, "orders/1": 0, "orders/2": 0}).with_waiting(waiting, NOW)
    assert (lag.records, lag.seconds) == (10, 6.0)
    assert lag.partitions == {"orders/0": Lag(8, 4.0), "orders/1": Lag(2, 6.0), "orders/2": Lag(0, 0.0)}

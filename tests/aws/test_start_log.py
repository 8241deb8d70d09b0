"""Tests the packed starts of one key of a `rate_limit`."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.aws.table.start_log import (
    CHUNK,
    StartLog,
    StartOf,
    digest_of,
    erased,
    pack_log,
    pack_starts,
    starts_of_others,
    unpack_log,
    unpack_starts,
)

NOW = 1_780_000_000_000
STARTS = st.lists(st.tuples(st.integers(0, 2**48 - 1), st.binary(min_size=8, max_size=8)), max_size=2 * CHUNK - 1)


@given(first=st.integers(0, 10**12), number=st.integers(-1, 10**12), newest=STARTS, older=STARTS)
def test_a_log_is_read_as_it_was_written(
    first: int, number: int, newest: list[tuple[int, bytes]], older: list[tuple[int, bytes]]
) -> None:
    log = StartLog(first, tuple(StartOf(*start) for start in newest), number, tuple(at for at, _ in older[:CHUNK]))
    assert unpack_log(pack_log(log)) == log
    assert tuple(unpack_starts(pack_starts(log.newest))) == log.newest


def test_the_largest_log_and_a_chunk_need_one_write_unit_each() -> None:
    starts = tuple(StartOf(NOW, digest_of(str(n))) for n in range(2 * CHUNK - 1))
    keys = 250  # bytes of the other attributes, with the longest id of a function
    assert len(pack_log(StartLog(10**6, starts, 10**6, (NOW,) * CHUNK))) + keys < 1024
    assert len(pack_starts(starts[:CHUNK])) + keys < 1024


def filled(count: int) -> tuple[StartLog, dict[int, list[StartOf]]]:
    """A log with a start in each millisecond, and the chunks."""
    log, chunks = StartLog(), dict[int, list[StartOf]]()
    for at in range(count):
        log = log.add(at, digest_of(str(at)))
        if log.is_full:
            chunks[log.first // CHUNK] = [*log.newest[:CHUNK]]
            log = log.without_oldest()
    return log, chunks


@pytest.mark.parametrize("limit", [1, 2, 19, 20, 21, 39, 40, 41, 60, 99, 100])
def test_the_start_that_decides_is_found_in_the_log_or_in_one_chunk(limit: int) -> None:
    log, chunks = filled(100)
    if (number := log.chunk_needed(limit)) is not None:
        log = log.with_chunk(number, chunks[number])
    assert log.chunk_needed(limit) is None
    assert log.earlier(limit) == 100 - limit


def test_a_limit_above_the_number_of_starts_is_not_reached() -> None:
    log, _ = filled(100)
    assert (log.chunk_needed(101), log.earlier(101)) == (None, None)


def test_a_chunk_that_was_not_stored_does_not_count() -> None:
    log, _ = filled(100)
    number = log.chunk_needed(80)
    assert number is not None
    log = log.with_chunk(number, [])
    assert (log.chunk_needed(80), log.earlier(80)) == (None, None)


def test_times_never_decrease() -> None:
    log = StartLog().add(5, b"a" * 8).add(3, b"b" * 8)
    assert [start.at for start in log.newest] == [5, 5]


def test_a_start_can_be_taken_back_as_long_as_it_is_in_the_log() -> None:
    log, _ = filled(30)
    assert log.has(digest_of("29"))
    shorter = log.without(digest_of("29"))
    assert (shorter.count, shorter.earlier(1)) == (29, 28)
    assert log.without(digest_of("unknown")) == log


def test_an_erased_start_still_counts_and_belongs_to_nobody() -> None:
    log, chunks = filled(45)
    changed = log.erased(digest_of("44"))
    assert [start.at for start in changed.newest] == [start.at for start in log.newest]
    assert replace(changed, newest=()) == replace(log, newest=())
    assert len(list(starts_of_others(changed.newest, 0))) == len(log.newest) - 1
    chunk = erased(chunks[0], digest_of("3"))
    assert [start.at for start in starts_of_others(chunk, 0)] == [*range(3), *range(4, CHUNK)]
    assert [start.at for start in starts_of_others(chunk, 18)] == [18, 19]

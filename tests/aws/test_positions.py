"""The order in which events are accepted, within one process and among many."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stepwell.aws.table.positions import first_of, month_of, ms_of, newest_position, next_position, reset

NOW = 1_780_308_030_000  # 2026-06-01T10:00:30Z


@pytest.fixture(autouse=True)
def new_process() -> Iterator[None]:
    reset()
    yield
    reset()


def test_positions_of_one_process_only_grow_however_many_a_millisecond_has() -> None:
    positions = [next_position(NOW) for _ in range(5_000)]
    assert positions == sorted(set(positions))


def test_positions_grow_though_the_clock_is_set_back() -> None:
    later = next_position(NOW)
    assert next_position(NOW - 60_000) > later


def test_a_position_has_its_time_in_it() -> None:
    position = next_position(NOW)
    assert ms_of(position) == NOW
    assert first_of(NOW) <= position < first_of(NOW + 1)


def test_two_processes_hardly_give_the_same_position_in_one_millisecond() -> None:
    positions = []
    for _ in range(20):
        reset()
        positions.append(next_position(NOW))
    assert len(set(positions)) > 10


def test_the_newest_position_is_behind_all_that_was_accepted() -> None:
    last = [next_position(NOW) for _ in range(3)][-1]
    assert newest_position(NOW) >= last
    assert newest_position(NOW + 1) == first_of(NOW + 1)
    assert newest_position(NOW - 60_000) >= last


def test_lists_are_cut_by_the_month_of_a_position_in_utc() -> None:
    end_of_june = 1_782_863_999_999  # 2026-06-30T23:59:59.999Z
    assert [month_of(first_of(end_of_june)), month_of(first_of(end_of_june + 1))] == ["2026-06", "2026-07"]

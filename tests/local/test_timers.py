"""Timers in SQLite: which ones are due, in which order, and when the next one is."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepwell.core.run.messages import Timer, TimerKind
from stepwell.local.database.schema import connect, migrate
from stepwell.local.store.timers import Timers

DELAY, RETRY = Timer(TimerKind.DELAY, 0), Timer(TimerKind.RETRY, 1, 2)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A database with three runs: row numbers 1 to 3, ids r1 to r3."""
    connection = connect(tmp_path / "db")
    migrate(connection)
    for seq in (1, 2, 3):
        connection.execute(
            'INSERT INTO runs (seq, id, function, version, event, user, "after", status, active, created_at, state)'
            " VALUES (?, ?, 'f', 1, 1, NULL, 0, 0, 0, 0, '')",
            (seq, f"r{seq}"),
        )
    yield connection
    connection.close()


def test_a_timer_is_due_exactly_at_its_millisecond(connection: sqlite3.Connection) -> None:
    timers = Timers(connection)
    timers.set(1, DELAY, 1_000)
    assert timers.take_due(999) == []
    assert timers.take_due(1_000) == [("r1", DELAY)]
    assert timers.take_due(1_000) == []


def test_timers_that_are_due_come_in_the_order_of_their_times(connection: sqlite3.Connection) -> None:
    timers = Timers(connection)
    timers.set(1, DELAY, 30)
    timers.set(2, RETRY, 10)
    timers.set(3, DELAY, 20)
    timers.set(3, RETRY, 31)
    assert timers.take_due(30) == [("r2", RETRY), ("r3", DELAY), ("r1", DELAY)]
    assert timers.next_due() == 31


def test_a_timer_that_is_set_again_has_only_the_new_time(connection: sqlite3.Connection) -> None:
    timers = Timers(connection)
    timers.set(1, DELAY, 10)
    timers.set(1, DELAY, 20)
    assert timers.next_due() == 20
    assert timers.take_due(30) == [("r1", DELAY)]


def test_clearing_a_timer_leaves_other_timers_of_the_run(connection: sqlite3.Connection) -> None:
    timers = Timers(connection)
    others = (DELAY, Timer(TimerKind.RETRY, 1, 3), Timer(TimerKind.RETRY, 2, 2), Timer(TimerKind.DECISION, 1, 2))
    for timer in (RETRY, *others):
        timers.set(1, timer, 10)
    timers.set(2, RETRY, 10)
    timers.clear(1, RETRY)
    left = {*(("r1", timer) for timer in others), ("r2", RETRY)}
    assert set(timers.take_due(10)) == left
    assert timers.next_due() is None


def test_changes_of_the_next_due_time_are_flagged(connection: sqlite3.Connection) -> None:
    timers = Timers(connection)
    assert timers.changed
    timers.next_due()
    assert not timers.changed
    timers.set(1, DELAY, 10)
    assert timers.changed
    timers.next_due()
    timers.clear(1, DELAY)
    assert timers.changed
    timers.next_due()
    timers.take_due(10)
    assert timers.changed


def test_the_next_due_time_is_that_of_a_timer_a_tick_or_a_canary_check(connection: sqlite3.Connection) -> None:
    timers = Timers(connection)
    assert timers.next_due() is None
    connection.execute("INSERT INTO guards VALUES ('f', 30)")
    assert timers.next_due() == 30
    connection.execute("INSERT INTO schedules (function, cron, timezone, next_at) VALUES ('f', '* * * * *', 'UTC', 20)")
    assert timers.next_due() == 20
    timers.set(1, DELAY, 10)
    assert timers.next_due() == 10


def test_the_tick_of_a_paused_function_is_not_the_next_due_time(connection: sqlite3.Connection) -> None:
    """The tick may have been due long ago: waiting for it would never end."""
    row = "INSERT INTO schedules (function, cron, timezone, next_at, paused) VALUES (?, '* * * * *', 'UTC', ?, ?)"
    connection.execute(row, ("paused", 10, True))
    assert Timers(connection).next_due() is None
    connection.execute(row, ("on", 20, False))
    assert Timers(connection).next_due() == 20


def test_many_due_timers_are_taken_in_portions_earliest_first(connection: sqlite3.Connection) -> None:
    timers = Timers(connection)
    names = [Timer(TimerKind.RETRY, number, 1) for number in range(501)]
    for number, timer in enumerate(names):
        timers.set(1 + number % 3, timer, 1_000 - number)
    first = timers.take_due(2_000)
    assert [timer for _, timer in first] == names[:0:-1]
    assert timers.next_due() == 1_000
    assert timers.take_due(2_000) == [("r1", names[0])]

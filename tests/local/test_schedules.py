"""Cron triggers in SQLite: their next ticks, and which ticks are taken."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepwell.core.plan import Trigger
from stepwell.local.database.schema import connect, migrate
from stepwell.local.store.schedules import Schedules

HOUR = 3_600_000
NOW = 1_780_002_000_000  # 21:00 UTC, a full hour
NEXT = NOW + HOUR
HOURLY, DAILY = Trigger(cron="0 * * * *"), Trigger(cron="0 12 * * *")


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = connect(tmp_path / "db")
    migrate(connection)
    yield connection
    connection.close()


@pytest.fixture
def schedules(connection: sqlite3.Connection) -> Schedules:
    return Schedules(connection)


def taken(schedules: Schedules, now: int) -> list[tuple[str, int]]:
    return [(function, tick["ts"]) for function, tick in schedules.take_ticks(now)]


def test_a_trigger_ticks_exactly_at_each_time(schedules: Schedules) -> None:
    schedules.set("f", [HOURLY], False, NOW)
    assert taken(schedules, NOW) == [], "the current minute's tick is over"
    assert taken(schedules, NEXT - 1) == []
    assert taken(schedules, NEXT) == [("f", NEXT)]
    assert taken(schedules, NEXT) == []
    assert taken(schedules, NEXT + HOUR) == [("f", NEXT + HOUR)]


def test_of_missed_ticks_only_the_latest_is_taken(schedules: Schedules) -> None:
    schedules.set("f", [HOURLY], False, NOW)
    assert taken(schedules, NEXT + 5 * HOUR + 7) == [("f", NEXT + 5 * HOUR)]
    assert taken(schedules, NEXT + 6 * HOUR - 1) == []


def test_a_trigger_that_stays_keeps_its_next_tick(schedules: Schedules) -> None:
    """Also if that tick is due: it was missed while the server was down."""
    schedules.set("f", [HOURLY], False, NOW)
    schedules.set("f", [HOURLY, DAILY], False, NEXT + 1)
    assert taken(schedules, NEXT + 1) == [("f", NEXT)]


def test_a_removed_trigger_does_not_tick_and_others_do(schedules: Schedules) -> None:
    berlin = Trigger(cron="0 * * * *", timezone="Europe/Berlin")
    schedules.set("f", [HOURLY, berlin, Trigger(event="go")], False, NOW)
    schedules.set("g", [HOURLY], False, NOW)
    schedules.set("f", [berlin], False, NOW)
    assert taken(schedules, NEXT) == [("f", NEXT), ("g", NEXT)]
    schedules.set("f", [], False, NEXT)
    assert taken(schedules, NEXT + HOUR) == [("g", NEXT + HOUR)]


def test_a_paused_function_ticks_once_it_is_resumed_for_the_latest_that_was_missed(schedules: Schedules) -> None:
    schedules.set("f", [HOURLY], False, NOW)
    schedules.set("g", [HOURLY], False, NOW)
    schedules.set("f", [HOURLY], True, NOW)
    assert taken(schedules, NEXT + 2 * HOUR) == [("g", NEXT + 2 * HOUR)]
    schedules.set("f", [HOURLY], False, NEXT + 2 * HOUR + 1)
    assert taken(schedules, NEXT + 2 * HOUR + 1) == [("f", NEXT + 2 * HOUR)]


def test_when_the_clock_was_set_back_the_next_tick_is_not_delayed(schedules: Schedules) -> None:
    schedules.set("f", [HOURLY, DAILY], False, NOW)
    schedules.cap_next_ticks(NOW - 3 * HOUR)
    assert taken(schedules, NOW - 2 * HOUR - 1) == []
    assert taken(schedules, NOW - 2 * HOUR) == [("f", NOW - 2 * HOUR)]


def test_when_the_clock_was_set_back_a_due_tick_stays_due(schedules: Schedules) -> None:
    schedules.set("f", [HOURLY], False, NOW)
    schedules.cap_next_ticks(NEXT + 1)
    assert taken(schedules, NEXT + 1) == [("f", NEXT)]

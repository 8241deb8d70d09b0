"""Tests when cron triggers fire, and which schedules are refused."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.core.events.cron import check_cron, latest_tick, next_tick, tick_event

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def at(text: str, timezone: str = "UTC", fold: int = 0) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(timezone), fold=fold).timestamp() * 1000)


@pytest.mark.parametrize(
    "cron", ["* * * * *", "*/5 9-17 * * MON-FRI", "0 0 1 jan *", "0 0 29 2 *", "0 0 L * *", "0 0 * * 5L", "0 0 * * 7"]
)
def test_five_fields_are_a_cron_expression(cron: str) -> None:
    check_cron(cron, "Europe/Berlin")


@pytest.mark.parametrize(
    ("cron", "timezone", "text"),
    [
        ("", "UTC", "has 0 fields; write five fields: minute hour day month weekday"),
        ("@daily", "UTC", "has 1 field; write five"),
        ("* * * *", "UTC", "has 4 fields; write five"),
        ("0 * * * * *", "UTC", "has 6 fields; write five"),
        ("61 * * * *", "UTC", "has an error in the field minute; a minute is 0-59"),
        ("*/0 * * * *", "UTC", "has an error in the field minute"),
        ("* 24 * * *", "UTC", "has an error in the field hour"),
        ("* * 0 * *", "UTC", "has an error in the field day-of-month"),
        ("* * * FOO *", "UTC", "has an error in the field month"),
        ("* * * * MONDAY", "UTC", "has an error in the field day-of-week"),
        ("* * * * 5L/2", "UTC", "has an error"),
        ("* * 32 2 *", "UTC", "has an error in the field day-of-month"),
        ("0 0 31 2 *", "UTC", "never fires, because no month has this day"),
        ("0 0 30,31 FEB *", "UTC", "never fires, because no month has this day"),
        ("0 0 31 4,6 *", "UTC", "never fires, because no month has this day"),
        ("* * * * " + "1" * 5000, "UTC", "is too long"),
        ("* * * * *", "Mars/Base", "'Mars/Base' is not a time zone; write one such as UTC or Europe/Berlin"),
        ("* * * * *", "Europe", "is not a time zone"),
        ("* * * * *", "", "is not a time zone"),
        ("* * * * *", "../../etc/passwd", "is not a time zone"),
        ("* * * * *", "\0", "is not a time zone"),
        ("* * * * *", "x" * 5000, "is not a time zone"),
    ],
)
def test_an_unusable_schedule_is_refused_with_a_clear_message(cron: str, timezone: str, text: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        check_cron(cron, timezone)
    assert text in str(refused.value)
    assert len(str(refused.value)) < 300


FIELD = st.text("0123456789*/,-#LW", max_size=4) | st.sampled_from(
    ["*", "*/2", "1-5", "MON", "JAN", "5L", "LW", "MON#5"]
)


@given(
    st.lists(FIELD, min_size=5, max_size=5).map(" ".join) | st.text(max_size=20), st.text(max_size=5) | st.just("UTC")
)
def test_any_text_is_a_cron_expression_or_refused(cron: str, timezone: str) -> None:
    try:
        check_cron(cron, timezone)
    except ValueError:
        return
    assert next_tick(cron, timezone, 0) > 0


def test_the_next_tick_is_strictly_later() -> None:
    noon = at("2024-05-01T12:00")
    assert next_tick("0 12 * * *", "UTC", noon - 1) == noon
    assert next_tick("0 12 * * *", "UTC", noon) == noon + DAY
    assert next_tick("0 12 * * *", "UTC", noon + 1) == noon + DAY


def test_a_tick_is_in_its_time_zone() -> None:
    assert next_tick("0 12 * * *", "Europe/Berlin", at("2024-05-01T00:00")) == at("2024-05-01T10:00")
    assert next_tick("0 12 * * *", "Europe/Berlin", at("2024-12-01T00:00")) == at("2024-12-01T11:00")


def test_a_time_skipped_by_the_clock_fires_at_the_end_of_the_gap() -> None:
    assert next_tick("30 2 * * *", "Europe/Berlin", at("2024-03-30T12:00")) == at("2024-03-31T01:00")
    assert next_tick("30 2 * * *", "Europe/Berlin", at("2024-03-31T01:00")) == at("2024-04-01T00:30")


def test_a_time_that_occurs_twice_fires_once() -> None:
    first = at("2024-10-27T02:30", "Europe/Berlin")
    tomorrow = at("2024-10-28T02:30", "Europe/Berlin")
    assert next_tick("30 2 * * *", "Europe/Berlin", first - 1) == first
    for after in (first, first + HOUR - 20 * MINUTE, first + HOUR):  # in the second pass through the hour, too
        assert next_tick("30 2 * * *", "Europe/Berlin", after) == tomorrow
        assert latest_tick("30 2 * * *", "Europe/Berlin", first - 1, after) == first


def test_an_hourly_schedule_fires_in_both_passes_of_a_repeated_hour() -> None:
    start = at("2024-10-27T00:00", "Europe/Berlin")
    tick, ticks = start, []
    while tick < start + 5 * HOUR:
        tick = next_tick("0 * * * *", "Europe/Berlin", tick)
        ticks.append(tick - start)
    assert ticks == [HOUR * n for n in range(1, 6)]


def test_after_a_downtime_only_the_latest_tick_is_found() -> None:
    start, now = at("2024-01-01T00:00"), at("2024-06-15T12:34") + 56_789
    assert latest_tick("* * * * *", "UTC", start, now) == at("2024-06-15T12:34")
    assert latest_tick("0 3 1 * *", "UTC", start, now) == at("2024-06-01T03:00")
    assert latest_tick("0 0 29 2 *", "UTC", start, now) == at("2024-02-29T00:00")
    assert latest_tick("0 0 1 1 *", "UTC", start, now) is None


def test_the_latest_tick_may_be_now_and_not_the_last_one_again() -> None:
    noon = at("2024-05-01T12:00")
    assert latest_tick("0 12 * * *", "UTC", noon - 1, noon) == noon
    assert latest_tick("0 12 * * *", "UTC", noon - DAY, noon) == noon
    assert latest_tick("0 12 * * *", "UTC", noon, noon + HOUR) is None
    assert latest_tick("0 12 * * *", "UTC", noon - 1, noon - 1) is None


ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Sao_Paulo"]
CRONS = [
    "* * * * *",
    "*/7 * * * *",
    "30 2 * * *",
    "0 0 * * *",
    "15,45 1-3 * * *",
    "0 * * * *",
    "*/20 2 * * SUN",
    "5 */3 * * *",
]
TURNS = ["2024-03-10", "2024-03-31", "2024-04-07", "2024-10-06", "2024-10-27", "2024-11-03", "2018-11-04", "2024-07-01"]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(CRONS),
    st.sampled_from(ZONES),
    st.sampled_from(TURNS),
    st.integers(-30 * 60, 30 * 60),
    st.integers(0, 12 * 60 * 2),
)
def test_the_latest_tick_is_the_last_of_the_next_ones(cron: str, zone: str, day: str, offset: int, span: int) -> None:
    after = at(day) + offset * MINUTE
    until = after + span * MINUTE // 2
    last, tick = None, next_tick(cron, zone, after)
    while tick <= until:
        assert tick > (last or after)
        last, tick = tick, next_tick(cron, zone, tick)
    assert latest_tick(cron, zone, after, until) == last


def test_a_tick_is_the_event_of_the_contract() -> None:
    moment = at("2024-05-01T12:00")
    assert tick_event("nightly", "0 12 * * *", moment) == {
        "name": "stepwell/scheduled.timer",
        "id": f"cron:nightly:{moment // MINUTE}",
        "data": {"cron": "0 12 * * *", "scheduled_at": "2024-05-01T12:00:00Z"},
        "ts": moment,
    }
    assert datetime.fromisoformat("2024-05-01T12:00:00Z") == datetime.fromtimestamp(moment / 1000, UTC)


def test_a_start_without_cron_triggers_does_not_load_the_library() -> None:
    code = "import sys, stepwell.core.events.cron; sys.exit('cronsim' in sys.modules or 'zoneinfo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

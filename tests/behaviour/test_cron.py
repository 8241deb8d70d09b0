"""Cron triggers: ticks, their events and runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.behaviour.words import START, Json, Platform, Refused, function, moment, statuses

TICK = "stepwell/scheduled.timer"


def cron(expression: str, **fields: str) -> Json:
    return {"cron": expression, **fields}


def ticks(platform: Platform) -> list[datetime]:
    return [moment(event["data"]["scheduled_at"]) for event in platform.events(TICK)]


def test_a_tick_is_a_stored_event_and_starts_a_run(platform: Platform) -> None:
    platform.deploy(function(id="clock", on=cron("5 10 * * *")))
    assert platform.runs() == []
    platform.travel("10m")
    (tick,) = platform.events(TICK)
    at = datetime(2026, 6, 1, 10, 5, tzinfo=UTC)
    assert tick["name"] == "stepwell/scheduled.timer"
    assert tick["id"] == f"cron:clock:{int(at.timestamp()) // 60}"
    assert tick["data"] == {"cron": "5 10 * * *", "scheduled_at": "2026-06-01T10:05:00Z"}
    assert tick["user"] == {}
    (run,) = platform.runs(tick["id"])
    assert (run["function_id"], run["status"]) == ("clock", "completed")
    assert moment(run["created_at"]) == at


def test_a_tick_is_exact_to_the_millisecond(platform: Platform) -> None:
    platform.deploy(function(on=cron("1 10 * * *")))
    platform.travel("29999ms")
    assert ticks(platform) == []
    platform.travel("1ms")
    assert ticks(platform) == [START + timedelta(seconds=30)]


def test_a_long_travel_has_a_tick_for_every_minute(platform: Platform) -> None:
    platform.deploy(function(on=cron("* * * * *")))
    platform.travel("10m")
    assert ticks(platform) == [START + timedelta(seconds=30 + 60 * n) for n in range(10)]
    runs = platform.runs()
    assert len(runs) == 10
    assert {run["status"] for run in runs} == {"completed"}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("*/15 11 * * *", ["06-01T11:00", "06-01T11:15", "06-01T11:30", "06-01T11:45"]),
        ("0 9 * * mon-fri", ["06-02T09:00", "06-03T09:00"]),
        ("0 9 3 * *", ["06-03T09:00"]),
        ("0 9 * * sun", []),
    ],
)
def test_each_of_the_five_fields_works(platform: Platform, expression: str, expected: list[str]) -> None:
    platform.deploy(function(on=cron(expression)))
    platform.travel("2d" if expression.startswith("0") else "3h")
    assert ticks(platform) == [datetime.fromisoformat(f"2026-{text}:00+00:00") for text in expected]


@pytest.mark.parametrize(
    ("timezone", "utc"),
    [("UTC", "12:30"), ("Europe/Berlin", "10:30"), ("America/New_York", "16:30"), ("Asia/Kolkata", "07:00")],
)
def test_the_fields_are_in_the_triggers_time_zone(platform: Platform, timezone: str, utc: str) -> None:
    platform.deploy(function(on=cron("30 12 * * *", timezone=timezone)))
    platform.travel("1d")
    assert [f"{tick:%H:%M}" for tick in ticks(platform)] == [utc]


def test_the_local_time_of_day_stays_when_daylight_saving_changes(platform: Platform) -> None:
    platform.deploy(function(on=cron("0 12 1 * *", timezone="Europe/Berlin")))
    platform.travel("184d")
    hours = {tick.month: tick.hour for tick in ticks(platform)}
    assert hours == {7: 10, 8: 10, 9: 10, 10: 10, 11: 11, 12: 11}


@pytest.mark.parametrize(
    ("trigger", "field"),
    [
        (cron("* * * *"), "cron"),
        (cron("* * * * * *"), "cron"),
        (cron("@daily"), "cron"),
        (cron("61 * * * *"), "cron"),
        (cron("0 0 31 2 *"), "cron"),  # a date that does not exist
        (cron("* * * * *", timezone="Mars/Base"), "timezone"),
    ],
)
def test_an_invalid_cron_expression_is_refused(platform: Platform, trigger: Json, field: str) -> None:
    with pytest.raises(Refused) as refused:
        platform.deploy(function(on=trigger))
    assert [error["pointer"] for error in refused.value.errors] == [f"/triggers/0/{field}"]


# --- which runs ------------------------------------------------------------------------------------------------------


def test_a_tick_starts_only_its_own_function(platform: Platform) -> None:
    platform.deploy(function(id="one", on=cron("0 11 * * *")))
    platform.deploy(function(id="two", on=cron("0 12 * * *")))
    platform.deploy(function(id="every", on="*"))
    platform.travel("1h")
    assert [run["function_id"] for run in platform.runs()] == ["one"]
    platform.travel("1h")
    assert [run["function_id"] for run in platform.runs()] == ["one", "two"]


def test_functions_with_the_same_minute_get_separate_ticks(platform: Platform) -> None:
    platform.deploy(function(id="one", on=cron("0 11 * * *")))
    platform.deploy(function(id="two", on=cron("0 11 * * *")))
    platform.travel("1h")
    assert sorted(run["function_id"] for run in platform.runs()) == ["one", "two"]
    assert len(platform.events(TICK)) == 2


def test_two_cron_triggers_with_the_same_minute_start_one_run(platform: Platform) -> None:
    berlin = cron("0 13 * * *", timezone="Europe/Berlin")
    platform.deploy(function(on=[cron("0 * * * *"), cron("*/30 * * * *"), berlin]))
    platform.travel("1h")  # 10:30 by one trigger; 11:00 (13:00 in Berlin) by all three
    assert [tick.minute for tick in ticks(platform)] == [30, 0]
    assert len(platform.runs()) == 2


def test_a_function_can_have_cron_and_event_triggers(platform: Platform) -> None:
    platform.deploy(function(on=[cron("0 11 * * *"), {"event": "go"}]))
    platform.send("go")
    platform.travel("1h")
    assert [statuses(run) for run in platform.runs()] == [{"a": "completed"}] * 2


def test_senders_cannot_make_ticks(platform: Platform) -> None:
    with pytest.raises(Refused):
        platform.send(TICK)


# --- downtime and changes --------------------------------------------------------------------------------------------


def test_after_downtime_only_the_latest_missed_tick_runs(platform: Platform) -> None:
    platform.deploy(function(on=cron("0 * * * *")))
    platform.travel("1h")
    platform.restart("3h")  # it is now 14:00:30
    platform.settle()
    assert [tick.hour for tick in ticks(platform)] == [11, 14]
    (_, run) = platform.runs()
    assert moment(run["created_at"]) == START + timedelta(hours=4)
    platform.travel("1h")
    assert [tick.hour for tick in ticks(platform)] == [11, 14, 15]


def test_downtime_between_two_ticks_changes_nothing(platform: Platform) -> None:
    platform.deploy(function(on=cron("0 * * * *")))
    platform.restart("20m")
    platform.settle()
    assert ticks(platform) == []
    platform.travel("40m")
    assert len(ticks(platform)) == 1


def test_after_downtime_each_trigger_gets_its_latest_missed_tick(platform: Platform) -> None:
    """A frequent trigger does not replace the tick of a rare one."""
    platform.deploy(function(on=[cron("15 11 * * *"), cron("* * * * *")]))
    platform.restart("2h")  # it is now 12:00:30
    platform.settle()
    assert [f"{tick:%H:%M}" for tick in sorted(ticks(platform))] == ["11:15", "12:00"]


def test_a_new_cron_trigger_runs_no_earlier_ticks(platform: Platform) -> None:
    platform.deploy(function(on=cron("0 11 * * *")))
    platform.travel("2h")
    platform.deploy(function(on=cron("30 11 * * *")))
    platform.settle()
    assert [tick.minute for tick in ticks(platform)] == [0]
    platform.travel("1d")
    assert [tick.minute for tick in ticks(platform)] == [0, 30]


def test_deploying_again_keeps_the_next_tick(platform: Platform) -> None:
    platform.deploy(function(on=cron("0 * * * *")))
    platform.travel("10m")
    platform.deploy(function({"a": {}, "b": "a"}, on=cron("0 * * * *")))
    platform.travel("50m")
    (run,) = platform.runs()
    assert statuses(run) == {"a": "completed", "b": "completed"}

"""`throttle` and `priority`: starts are spread over time, and some come before others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.behaviour.test_concurrency import is_running, is_waiting, send_all
from tests.behaviour.words import Json, Platform, function, moment, script, statuses

A_MINUTE = {"limit": 1, "period": "1m"}


def starts(platform: Platform, runs: list[str]) -> list[float]:
    """When the first attempts of some runs started, in seconds after the first of them."""
    times = [moment(platform.run(run)["steps"]["a"]["attempts"][0]["started_at"]).timestamp() for run in runs]
    return [time - times[0] for time in times]


def test_runs_start_evenly_spread_and_in_order(platform: Platform) -> None:
    platform.deploy(function(throttle={"limit": 2, "period": "1m"}))
    runs = send_all(platform, {}, {}, {}, {})
    found = [platform.run(run) for run in runs]
    assert [run["status"] for run in found] == ["completed", "running", "running", "running"]
    waiting = [run["waiting_for"] for run in found[1:]]
    assert [(it["limit"], it["key"], it["ahead"]) for it in waiting] == [("f/throttle", None, n) for n in range(3)]
    platform.travel("5m")
    assert [platform.run(run)["status"] for run in runs] == ["completed"] * 4
    assert starts(platform, runs) == [0, 30, 60, 90]


def test_a_burst_need_not_be_spread(platform: Platform) -> None:
    platform.deploy(function(throttle={**A_MINUTE, "burst": 2}))
    runs = send_all(platform, *[{}] * 5)
    platform.travel("5m")
    assert starts(platform, runs) == [0, 0, 0, 60, 120]


def test_each_key_of_a_throttle_is_spread_by_itself(platform: Platform) -> None:
    platform.deploy(function(throttle={**A_MINUTE, "key": "event.data.customer"}))
    runs = send_all(platform, *({"customer": name} for name in ("ada", "eve", "ada")))
    platform.travel("5m")
    assert starts(platform, runs) == [0, 0, 60]


def test_a_throttle_of_a_step_spreads_all_attempts_of_it(platform: Platform) -> None:
    """A retry is an attempt like any other. The run itself starts at once."""
    retries = {"attempts": 1, "backoff": {"initial": "1s", "jitter": 0}}
    platform.deploy(function({"first": {}, "a": {"after": "first", "retries": retries, "throttle": A_MINUTE}}))
    one, two = send_all(platform, script(a=[{"raise": "no"}, {}]), {})
    found = [platform.run(run) for run in (one, two)]
    assert [statuses(run)["first"] for run in found] == ["completed"] * 2
    assert found[1]["steps"]["a"]["waiting_for"]["limit"] == "f/steps/a/throttle"
    platform.travel("5m")
    attempts = [a["started_at"] for run in (one, two) for a in platform.run(run)["steps"]["a"]["attempts"]]
    times = sorted(moment(time).timestamp() for time in attempts)
    assert [time - times[0] for time in times] == [0, 60, 120]


def test_a_throttled_run_that_is_cancelled_does_not_start(platform: Platform) -> None:
    platform.deploy(function(throttle=A_MINUTE))
    first, second, third = send_all(platform, {}, {}, {})
    platform.run(second)
    platform.cancel(second)
    platform.travel("1m")
    assert [platform.run(run)["status"] for run in (first, second, third)] == ["completed", "cancelled", "completed"]


def test_a_throttle_and_a_limit_of_runs_apply_together(platform: Platform) -> None:
    steps = {"a": {}, "b": {"after": {"step": "a", "wait": "10m"}}}
    platform.deploy(function(steps, throttle=A_MINUTE, concurrency={"limit": 2, "scope": "run"}))
    runs = send_all(platform, *[{}] * 4)
    platform.travel("1h")
    assert [platform.run(run)["status"] for run in runs] == ["completed"] * 4
    assert starts(platform, runs) == [0, 60, 600, 660]


# --- priority --------------------------------------------------------------------------------------------------------


def test_a_run_with_a_priority_comes_before_others_that_wait_for_the_same_limit(platform: Platform) -> None:
    platform.deploy(function(throttle=A_MINUTE, priority="event.data.priority"))
    runs = send_all(platform, *({"priority": priority} for priority in (0, 0, 60, -600, 600)))
    platform.run(runs[0])
    platform.travel("10m")
    assert starts(platform, runs) == [0, 180, 120, 240, 60]


def test_a_priority_orders_attempts_too(platform: Platform, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    platform.deploy(function(concurrency={"limit": 1}, priority="event.data.priority"))
    (first,) = send_all(platform, {"priority": 0, **script(a=[{"wait_for": str(gate)}])})
    platform.wait(first, is_running)
    low, high = tmp_path / "low", tmp_path / "high"
    data = [{"priority": n, **script(a=[{"touch": str(file)}])} for n, file in ((-5, low), (5, high))]
    runs = send_all(platform, *data)
    for run in runs:
        platform.wait(run, is_waiting)
    gate.touch()
    assert [platform.run(run)["status"] for run in runs] == ["completed"] * 2
    assert high.stat().st_mtime_ns < low.stat().st_mtime_ns


@pytest.mark.parametrize(
    ("priority", "problem"),
    [
        ("event.data.none", "the run has no priority"),
        ("'high'", "the value is not a whole number; the run has no priority"),
        ("0.5", "the value is not a whole number; the run has no priority"),
        ("601", "the value is not from -600 to 600; the nearest of them applies"),
    ],
)
def test_a_priority_that_is_no_whole_number_in_range_is_shown(platform: Platform, priority: str, problem: str) -> None:
    platform.deploy(function(priority=priority))
    (run,) = send_all(platform, {})
    done: Json = platform.run(run)
    assert done["status"] == "completed"
    assert done["problem"].startswith("priority: ")
    assert done["problem"].endswith(problem)


def test_a_whole_number_is_a_priority_whether_it_is_written_as_one_or_as_a_double(platform: Platform) -> None:
    platform.deploy(function(priority="event.data.priority"))
    runs = send_all(platform, {"priority": 5}, {"priority": 5.0})
    assert ["problem" in platform.run(run) for run in runs] == [False, False]

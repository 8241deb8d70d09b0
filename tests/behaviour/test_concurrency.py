"""`concurrency`: how many attempts, or runs, execute at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.behaviour.words import Json, Platform, Refused, function, script, statuses

ONE = {"limit": 1}


def held(gate: Path, **data: Json) -> Json:
    """Data of an event whose step `a` runs until the gate is there."""
    return {**script(a=[{"wait_for": str(gate)}]), **data}


def waits_for(run: Json, step: str = "a") -> Json | None:
    found: Json | None = run["steps"][step].get("waiting_for")
    return found


def is_running(run: Json) -> bool:
    return "running" in statuses(run).values()


def is_waiting(run: Json) -> bool:
    return "waiting_for" in run or any("waiting_for" in step for step in run["steps"].values())


def send_all(platform: Platform, *data: Json, name: str = "go") -> list[str]:
    """The ids of the runs of some events, which were sent one after another."""
    return [platform.run_of(platform.send(name, data=item)) for item in data]


# --- steps -----------------------------------------------------------------------------------------------------------


def test_no_more_attempts_execute_than_the_limit_allows_and_the_others_say_what_they_wait_for(
    platform: Platform, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    platform.deploy(function(concurrency=ONE))
    first, second, third = send_all(platform, *[held(gate)] * 3)
    platform.wait(first, is_running)
    waiting = [waits_for(platform.wait(run, is_waiting)) for run in (second, third)]
    assert [(it["limit"], it["key"], it["ahead"]) for it in waiting if it] == [
        ("f/concurrency", None, 0),
        ("f/concurrency", None, 1),
    ]
    assert [statuses(platform.peek(run))["a"] for run in (first, second, third)] == ["running", "queued", "queued"]
    gate.touch()
    runs = [platform.run(run) for run in (first, second, third)]
    assert [run["status"] for run in runs] == ["completed"] * 3
    assert [is_waiting(run) for run in runs] == [False] * 3
    times = [(run["steps"]["a"]["attempts"][0]["started_at"], run["ended_at"]) for run in runs]
    assert times == sorted(times)


def test_each_value_of_the_key_has_a_limit_of_its_own(platform: Platform, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    platform.deploy(function(concurrency={"limit": 1, "key": "event.data.customer"}))
    ada, also_ada, eve = send_all(platform, *(held(gate, customer=name) for name in ("ada", "ada", "eve")))
    for run in (ada, eve):
        platform.wait(run, is_running)
    waiting = waits_for(platform.wait(also_ada, is_waiting))
    assert waiting is not None
    assert (waiting["key"], waiting["ahead"]) == ("ada", 0)
    gate.touch()
    assert [platform.run(run)["status"] for run in (ada, also_ada, eve)] == ["completed"] * 3


def test_a_key_without_a_value_limits_its_run_alone_and_is_shown(platform: Platform, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    platform.deploy(function(concurrency={"limit": 1, "key": "event.data.customer"}))
    runs = send_all(platform, held(gate), held(gate))
    for run in runs:
        platform.wait(run, is_running)
    gate.touch()
    for run in map(platform.run, runs):
        assert run["status"] == "completed"
        assert run["problem"].startswith("the key of a limit: ")
        assert run["problem"].endswith("; the run has a limit of its own")


def test_parallel_steps_of_one_run_obey_the_limit(platform: Platform, tmp_path: Path) -> None:
    gate, log = tmp_path / "gate", tmp_path / "log"
    platform.deploy(function({"a": {}, "b": {}, "c": {}}, concurrency={"limit": 2}))
    acts = [{"touch": str(log), "wait_for": str(gate)}]
    (run,) = send_all(platform, script(a=acts, b=acts, c=acts))
    found = platform.wait(run, lambda run: sorted(statuses(run).values()) == ["queued", "running", "running"])
    assert is_waiting(found)
    gate.touch()
    assert platform.run(run)["status"] == "completed"
    assert len(log.read_text().splitlines()) == 3


def test_a_run_that_sleeps_or_waits_to_retry_holds_nothing(platform: Platform) -> None:
    retries = {"attempts": 1, "backoff": {"initial": "1h", "jitter": 0}}
    steps = {"a": {"retries": retries}, "b": {"after": {"step": "a", "wait": "1d"}}}
    platform.deploy(function(steps, concurrency=ONE))
    one, two = send_all(platform, script(a=[{"raise": "no"}, {}]), {})
    assert [statuses(platform.run(run)) for run in (one, two)] == [
        {"a": "retrying", "b": "pending"},
        {"a": "completed", "b": "waiting"},
    ]
    platform.travel("2d")
    assert [platform.run(run)["status"] for run in (one, two)] == ["completed"] * 2


@pytest.mark.parametrize("status", ["raise", "crash"])
def test_a_failed_attempt_gives_its_place_back(platform: Platform, status: str) -> None:
    platform.deploy(function(concurrency=ONE))
    acts: Json = {"raise": "no"} if status == "raise" else {"crash": 3}
    runs = send_all(platform, script(a=[acts]), script(a=[acts]), {})
    assert [platform.run(run)["status"] for run in runs] == ["failed", "failed", "completed"]


def test_an_attempt_that_waits_can_be_cancelled_and_those_behind_it_move_up(platform: Platform, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    platform.deploy(function(concurrency=ONE))
    first, second, third = send_all(platform, *[held(gate)] * 3)
    platform.wait(third, is_waiting)
    platform.wait(second, is_waiting)
    platform.cancel(second)
    found = platform.wait(third, lambda run: (waits_for(run) or {"ahead": 1})["ahead"] == 0)
    assert is_waiting(found)
    gate.touch()
    runs = [platform.run(run) for run in (first, second, third)]
    assert [run["status"] for run in runs] == ["completed", "cancelled", "completed"]
    assert runs[1]["steps"]["a"]["attempts"][0]["started_at"] is None


def test_all_limits_of_a_list_apply(platform: Platform, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    limits = [{"limit": 2}, {"limit": 1, "key": "event.data.customer"}]
    platform.deploy(function(concurrency=limits))
    ada, ada_again, eve, bob = send_all(platform, *(held(gate, customer=name) for name in ("ada", "ada", "eve", "bob")))
    for run in (ada, eve):
        platform.wait(run, is_running)
    waiting = [waits_for(platform.wait(run, is_waiting)) for run in (ada_again, bob)]
    assert {it["limit"] for it in waiting if it} <= {"f/concurrency", "f/concurrency/1"}
    gate.touch()
    assert [platform.run(run)["status"] for run in (ada, ada_again, eve, bob)] == ["completed"] * 4


# --- a limit of a step, and groups -----------------------------------------------------------------------------------


def test_a_limit_of_a_step_counts_only_this_step_and_its_key_may_use_earlier_steps(
    platform: Platform, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    steps = {"shop": {}, "a": {"after": "shop", "concurrency": {"limit": 1, "key": "steps.shop"}}}
    platform.deploy(function(steps))
    waits = [{"wait_for": str(gate)}]
    runs = send_all(platform, *(script(shop=[{"return": n}], a=waits) for n in (1, 1, 2)))
    platform.wait(runs[0], is_running)
    platform.wait(runs[2], is_running)
    waiting = waits_for(platform.wait(runs[1], is_waiting))
    assert waiting is not None
    assert (waiting["limit"], waiting["key"]) == ("f/steps/a/concurrency", 1)
    gate.touch()
    assert [platform.run(run)["status"] for run in runs] == ["completed"] * 3


def test_the_key_of_a_step_without_a_value_is_shown_with_the_step(platform: Platform) -> None:
    platform.deploy(function({"a": {"concurrency": {"limit": 1, "key": "event.data.shop"}}}))
    (run,) = send_all(platform, {})
    done = platform.run(run)
    assert done["status"] == "completed"
    assert done["steps"]["a"]["problem"].startswith("the key of a limit: ")


def test_functions_share_the_limit_of_a_group(platform: Platform, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    platform.deploy(function(id="owner", concurrency={"limit": 1, "group": "api"}))
    platform.deploy(function(id="guest", on="come", concurrency={"group": "api"}))
    (first,) = send_all(platform, held(gate))
    platform.wait(first, is_running)
    (second,) = send_all(platform, held(gate), name="come")
    waiting = waits_for(platform.wait(second, is_waiting))
    assert waiting is not None
    assert waiting["limit"] == "groups/api/concurrency"
    gate.touch()
    assert [platform.run(run)["status"] for run in (first, second)] == ["completed"] * 2


# --- runs ------------------------------------------------------------------------------------------------------------

SLEEPS = {"a": {}, "b": {"after": {"step": "a", "wait": "1h"}}}
ONE_RUN = {"limit": 1, "scope": "run"}


def test_with_the_scope_run_no_run_starts_while_too_many_are_open(platform: Platform) -> None:
    platform.deploy(function(SLEEPS, concurrency=ONE_RUN))
    first, second, third = send_all(platform, {}, {}, {})
    assert statuses(platform.run(first)) == {"a": "completed", "b": "waiting"}
    waiting = [platform.run(run) for run in (second, third)]
    assert {(run["status"], run["started_at"], statuses(run)["a"]) for run in waiting} == {("running", None, "pending")}
    assert [(run["waiting_for"]["limit"], run["waiting_for"]["ahead"]) for run in waiting] == [
        ("f/concurrency", 0),
        ("f/concurrency", 1),
    ]
    platform.travel("1h")
    assert [statuses(platform.run(run)) for run in (first, second, third)] == [
        {"a": "completed", "b": "completed"},
        {"a": "completed", "b": "waiting"},
        {"a": "pending", "b": "pending"},
    ]
    platform.cancel(second)
    assert statuses(platform.run(third)) == {"a": "completed", "b": "waiting"}
    platform.travel("1h")
    assert [platform.run(run)["status"] for run in (first, second, third)] == ["completed", "cancelled", "completed"]


def test_a_run_that_waits_to_start_can_be_cancelled(platform: Platform) -> None:
    platform.deploy(function(SLEEPS, concurrency=ONE_RUN))
    first, second, third = send_all(platform, {}, {}, {})
    platform.run(second)
    platform.cancel(second)
    platform.travel("1h")
    assert [platform.run(run)["status"] for run in (first, second, third)] == ["completed", "cancelled", "running"]
    assert statuses(platform.run(second)) == {"a": "cancelled", "b": "cancelled"}


def test_a_run_that_waits_to_start_is_cancelled_by_its_timeout(platform: Platform) -> None:
    platform.deploy(function(SLEEPS, concurrency=ONE_RUN, timeouts={"start": "10m"}))
    first, second = send_all(platform, {}, {})
    platform.run(second)
    platform.travel("10m")
    run = platform.run(second)
    assert (run["status"], run["reason"], run["timeout"]) == ("cancelled", "timeout", "start")
    platform.travel("1h")
    assert platform.run(first)["status"] == "completed"


def test_a_rerun_waits_like_any_other_run(platform: Platform) -> None:
    platform.deploy(function(SLEEPS, concurrency=ONE_RUN))
    (first,) = send_all(platform, {})
    platform.run(first)
    again = platform.rerun(first)
    assert again is not None
    assert "waiting_for" in platform.run(again)
    platform.travel("1h")
    assert [statuses(platform.run(run))["b"] for run in (first, again)] == ["completed", "waiting"]


# --- settings --------------------------------------------------------------------------------------------------------


def test_what_waits_obeys_a_new_version_within_a_minute(platform: Platform) -> None:
    platform.deploy(function(SLEEPS, concurrency=ONE_RUN))
    runs = send_all(platform, {}, {}, {})
    assert "waiting_for" in platform.run(runs[2])
    platform.deploy(function(SLEEPS, concurrency={**ONE_RUN, "limit": 3}))
    platform.travel("1m")
    assert [statuses(platform.run(run)) for run in runs] == [{"a": "completed", "b": "waiting"}] * 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"concurrency": {"limit": 0}}, "concurrency"),
        ({"concurrency": {}}, "limit"),
        ({"concurrency": {"limit": 1, "key": "steps.a"}}, "key"),
        ({"concurrency": [{"limit": 1}] * 4}, "concurrency"),
        ({"concurrency": {"limit": 1, "scope": "step"}}, "scope"),
        ({"throttle": {"limit": 1}}, "period"),
        ({"throttle": {"limit": 1, "period": "32d"}}, "period"),
        ({"priority": "event.data.plan +"}, "priority"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(platform: Platform, fields: Json, message: str) -> None:
    with pytest.raises(Refused) as refused:
        platform.deploy(function(**fields))
    assert message in str(refused.value)

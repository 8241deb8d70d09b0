"""`timeouts` of a function: runs that do not start, or do not finish, in time are cancelled."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.behaviour.words import START, Json, Platform, Refused, function, has, moment, script, statuses

NEVER = {"wait_for": "/nonexistent"}
LATER = {"a": {"after": {"step": "$trigger", "wait": "20h"}}}
LONG = {"a": {}, "b": {"after": {"step": "a", "wait": "30d"}}}


def sent(platform: Platform, **event: Json) -> Json:
    """The only run of a new event."""
    (run,) = platform.runs(platform.send(**event))
    return run


def ended(run: Json) -> tuple[str, str | None, str | None]:
    return run["status"], run["reason"], run["timeout"]


OPEN = ("running", None, None)
NOT_STARTED, NOT_FINISHED = ("cancelled", "timeout", "start"), ("cancelled", "timeout", "finish")


# --- start -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "before"), [("10m", "599999ms"), ("15h", "53999999ms")])
def test_a_run_that_has_not_started_in_time_is_cancelled(platform: Platform, start: str, before: str) -> None:
    platform.deploy(function({**LATER, "b": {"after": {"step": "a", "on": "always"}}}, timeouts={"start": start}))
    run = sent(platform)
    platform.travel(before)
    assert ended(platform.run(run["id"])) == OPEN
    platform.travel("1ms")
    run = platform.run(run["id"])
    assert (ended(run), statuses(run)) == (NOT_STARTED, {"a": "cancelled", "b": "cancelled"})
    assert (run["started_at"], run["output"], run["error"], run["cancelled_by"]) == (None, None, None, None)
    platform.travel("30d")
    assert platform.run(run["id"]) == run


def test_a_run_whose_first_attempt_has_started_has_started(platform: Platform) -> None:
    """It may take as long as it likes after that, also if the attempt fails."""
    platform.deploy(
        function({"a": {"retries": {"attempts": 1, "backoff": {"initial": "1h"}}}}, timeouts={"start": "30m"})
    )
    run = sent(platform, data=script(a=[{"raise": "no"}, {}]))
    platform.travel("40m")
    assert statuses(platform.run(run["id"])) == {"a": "retrying"}
    platform.travel("2h")
    assert platform.run(run["id"])["status"] == "completed"


def test_a_run_that_waits_for_an_event_before_its_first_step_has_not_started(platform: Platform) -> None:
    waits = {"a": {"after": {"step": "$trigger", "async": {"event": "paid", "ttl": "3d"}}}}
    platform.deploy(function(waits, timeouts={"start": "1h"}))
    first = sent(platform)
    platform.travel("1h")
    second = sent(platform)
    platform.send("paid")
    runs = [platform.run(run["id"]) for run in (first, second)]
    assert [ended(run)[0] for run in runs] == ["cancelled", "completed"]


# --- finish ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("finish", "before"), [("10m", "599999ms"), ("15h", "53999999ms")])
def test_a_run_that_has_not_finished_in_time_is_cancelled(platform: Platform, finish: str, before: str) -> None:
    platform.deploy(function(LONG, timeouts={"finish": finish}))
    run = sent(platform)
    platform.travel(before)
    assert ended(platform.run(run["id"])) == OPEN
    platform.travel("1ms")
    run = platform.run(run["id"])
    assert (ended(run), statuses(run)) == (NOT_FINISHED, {"a": "completed", "b": "cancelled"})
    platform.travel("40d")
    assert platform.run(run["id"]) == run


def test_finish_counts_from_the_first_attempt(platform: Platform) -> None:
    steps = {**LATER, "b": {"after": {"step": "a", "wait": "50m"}}}
    platform.deploy(function(steps, timeouts={"start": "1d", "finish": "1h"}))
    run = sent(platform)
    platform.travel("1d")
    run = platform.run(run["id"])
    assert run["status"] == "completed"
    assert moment(run["started_at"]) - START == timedelta(hours=20)


def test_a_retry_that_is_due_too_late_never_starts(platform: Platform) -> None:
    retries = {"attempts": 1, "backoff": {"initial": "1h"}}
    platform.deploy(function({"a": {"retries": retries}}, timeouts={"finish": "30m"}))
    run = sent(platform, data=script(a={"raise": "no"}))
    platform.travel("3h")
    run = platform.run(run["id"])
    assert (ended(run), statuses(run), len(run["steps"]["a"]["attempts"])) == (NOT_FINISHED, {"a": "cancelled"}, 1)


def test_an_open_approval_is_cancelled(platform: Platform) -> None:
    ask = {"runtime": {"type": "approval", "message": "Really?"}, "path": None, "retries": None}
    platform.deploy(function({"ask": ask}, timeouts={"finish": "1h"}))
    run = sent(platform)
    platform.travel("1h")
    run = platform.run(run["id"])
    assert (ended(run), statuses(run)) == (NOT_FINISHED, {"ask": "cancelled"})


def test_an_attempt_that_the_server_lost_is_not_repeated_after_the_time(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": {"after": {"step": "a", "on": "always"}}}, timeouts={"finish": "1h"}))
    run_id = platform.run_of(platform.send(data=script(a=NEVER)))
    platform.wait(run_id, has("a", "running"))
    platform.restart("2h")
    run = platform.wait(run_id, lambda run: run["status"] != "running")
    assert (ended(run), statuses(run)) == (NOT_FINISHED, {"a": "cancelled", "b": "cancelled"})


# --- both ------------------------------------------------------------------------------------------------------------


def test_a_run_within_its_timeouts_shows_no_reason_and_does_not_change_later(platform: Platform) -> None:
    platform.deploy(function(timeouts={"start": "1h", "finish": "1h"}))
    done, failed = sent(platform), sent(platform, data=script(a={"status": 404}))
    assert [ended(run) for run in (done, failed)] == [("completed", None, None), ("failed", None, None)]
    platform.travel("3h")
    assert [platform.run(run["id"]) for run in (done, failed)] == [done, failed]


def test_a_run_that_somebody_cancels_shows_no_reason(platform: Platform) -> None:
    platform.deploy(function(LONG, timeouts={"finish": "1h"}))
    run = sent(platform)
    platform.cancel(run["id"])
    platform.travel("2h")
    assert ended(platform.run(run["id"])) == ("cancelled", None, None)
    (end,) = platform.events("stepwell/run.cancelled")
    assert not {"reason", "timeout"} & set(end["data"])


def test_a_function_without_timeouts_waits_as_long_as_its_steps_do(platform: Platform) -> None:
    platform.deploy(function(LATER))
    run = sent(platform)
    assert ended(run) == OPEN
    platform.travel("20h")
    assert ended(platform.run(run["id"])) == ("completed", None, None)


def test_the_event_about_the_cancelled_run_has_the_reason(platform: Platform) -> None:
    platform.deploy(function(LONG, timeouts={"finish": "1h"}))
    platform.deploy(
        function(id="clean-up", on={"event": "stepwell/run.cancelled", "expression": "data.reason == 'timeout'"})
    )
    run = sent(platform)
    platform.travel("1h")
    (end,) = platform.events("stepwell/run.cancelled")
    assert (end["data"]["run_id"], end["data"]["reason"], end["data"]["timeout"]) == (run["id"], "timeout", "finish")
    assert "cancelled_by" not in end["data"]
    (clean_up,) = platform.runs(end["id"])
    assert (clean_up["function_id"], clean_up["status"]) == ("clean-up", "completed")


def test_timeouts_pass_while_the_server_is_down(platform: Platform) -> None:
    platform.deploy(function(LATER, id="early", timeouts={"start": "1h"}))
    platform.deploy(function(LONG, id="long", timeouts={"finish": "1h"}))
    platform.deploy(function(LONG, id="longer", timeouts={"finish": "3h"}))
    event = platform.send()
    platform.settle()
    platform.restart("2h")
    ends = {run["function_id"]: ended(run) for run in platform.runs(event)}
    assert ends == {"early": NOT_STARTED, "long": NOT_FINISHED, "longer": OPEN}


def test_a_rerun_has_the_whole_time_again(platform: Platform) -> None:
    platform.deploy(function(LONG, timeouts={"finish": "1h"}))
    run = sent(platform)
    platform.travel("1h")
    again = platform.rerun(run["id"])
    from_step = platform.api("POST", f"/v1/runs/{run['id']}/rerun", {"from_step": "a"})["id"]
    assert again is not None
    platform.travel("59m")
    assert [ended(platform.run(run_id)) for run_id in (again, from_step)] == [OPEN, OPEN]
    platform.travel("1m")
    assert [ended(platform.run(run_id)) for run_id in (again, from_step)] == [NOT_FINISHED, NOT_FINISHED]


def test_each_run_has_the_timeouts_of_its_version(platform: Platform) -> None:
    platform.deploy(function(LONG, timeouts={"finish": "1h"}))
    first = sent(platform)
    platform.deploy(function(LONG, timeouts={"finish": "3h"}))
    second = sent(platform)
    platform.travel("2h")
    assert [ended(platform.run(run["id"])) for run in (first, second)] == [NOT_FINISHED, OPEN]


@pytest.mark.parametrize(
    ("timeouts", "pointer"),
    [
        ({}, "/timeouts"),
        ({"start": "0s"}, "/timeouts/start"),
        ({"finish": "367d"}, "/timeouts/finish"),
        ({"finish": 60}, "/timeouts/finish"),
        ({"end": "1h", "start": "1h"}, "/timeouts/end"),
        ("1h", "/timeouts"),
    ],
)
def test_invalid_timeouts_are_refused_with_a_pointer(platform: Platform, timeouts: object, pointer: str) -> None:
    with pytest.raises(Refused) as refused:
        platform.deploy(function(timeouts=timeouts))
    assert [error["pointer"] for error in refused.value.errors] == [pointer]

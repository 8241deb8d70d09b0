"""Delays: `wait` on an edge, to the millisecond, through conditions, joins and restarts."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.behaviour.words import START, Json, Platform, Refused, function, moment, script, statuses


def delayed(wait: str, step: str = "a", **edge: object) -> Json:
    return {"step": step, "wait": wait, **edge}


def edge(run: Json, step_id: str, index: int = 0) -> Json:
    found: Json = run["steps"][step_id]["after"][index]
    return found


def queued_at(run: Json, step_id: str) -> timedelta:
    """When the step's first attempt was queued, counted from the start of the test."""
    return moment(run["steps"][step_id]["attempts"][0]["queued_at"]) - START


@pytest.mark.parametrize(
    ("wait", "delay"),
    [
        ("1ms", timedelta(milliseconds=1)),
        ("1500ms", timedelta(seconds=1.5)),
        ("10m", timedelta(minutes=10)),
        ("1h30m", timedelta(minutes=90)),
        ("3d", timedelta(days=3)),
        ("2w", timedelta(weeks=2)),
        ("366d", timedelta(days=366)),
    ],
)
def test_a_delay_is_exact_to_the_millisecond(platform: Platform, wait: str, delay: timedelta) -> None:
    platform.deploy(function({"a": {}, "b": {"after": delayed(wait)}}))
    (run,) = platform.runs(platform.send())
    assert (run["status"], statuses(run)) == ("running", {"a": "completed", "b": "waiting"})
    assert (edge(run, "b")["state"], moment(edge(run, "b")["until"])) == ("delayed", START + delay)
    milliseconds = delay // timedelta(milliseconds=1)
    platform.travel(f"{milliseconds - 1}ms")
    assert statuses(platform.run(run["id"])) == {"a": "completed", "b": "waiting"}
    platform.travel("1ms")
    run = platform.run(run["id"])
    assert (run["status"], statuses(run)) == ("completed", {"a": "completed", "b": "completed"})
    assert queued_at(run, "b") == delay


def test_on_a_long_travel_every_step_starts_at_its_own_time(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": {"after": delayed("1h")}, "c": {"after": delayed("2h", "b")}}))
    (run,) = platform.runs(platform.send())
    platform.travel("7d")
    run = platform.run(run["id"])
    assert (queued_at(run, "b"), queued_at(run, "c")) == (timedelta(hours=1), timedelta(hours=3))


@pytest.mark.parametrize("wait", ["367d", "0s", "soon", "-1s", "1y", ""])
def test_an_invalid_delay_is_refused(platform: Platform, wait: str) -> None:
    with pytest.raises(Refused) as refused:
        platform.deploy(function({"a": {}, "b": {"after": delayed(wait)}}))
    assert refused.value.errors[0]["pointer"] == "/steps/b/after/0/wait"


def test_a_delay_on_a_trigger_edge_counts_from_the_start_of_the_run(platform: Platform) -> None:
    platform.deploy(function({"a": {"after": delayed("1h", "$trigger")}, "b": {}}))
    (run,) = platform.runs(platform.send())
    assert statuses(run) == {"a": "waiting", "b": "completed"}
    platform.travel("1h")
    run = platform.run(run["id"])
    assert (run["status"], queued_at(run, "a")) == ("completed", timedelta(hours=1))


def test_a_delay_counts_from_the_parents_end(platform: Platform) -> None:
    backoff = {"initial": "10m", "jitter": 0}
    steps = {"a": {"retries": {"attempts": 1, "backoff": backoff}}, "b": {"after": delayed("1h")}}
    platform.deploy(function(steps))
    (run,) = platform.runs(platform.send(data=script(a=[{"raise": "no"}, {}])))
    platform.travel("2h")
    assert queued_at(platform.run(run["id"]), "b") == timedelta(minutes=70)


# --- order -----------------------------------------------------------------------------------------------------------


def test_a_condition_is_evaluated_before_the_delay(platform: Platform) -> None:
    steps = {"a": {}, "b": {"after": delayed("1h", **{"if": "response.n == 1"})}}
    platform.deploy(function(steps))
    (run,) = platform.runs(platform.send(data=script(a={"return": {"n": 2}})))
    assert (run["status"], statuses(run)["b"]) == ("completed", "skipped")  # without waiting for the delay
    (run,) = platform.runs(platform.send(data=script(a={"return": {"n": 1}})))
    assert (run["status"], statuses(run)["b"]) == ("running", "waiting")


def test_an_edge_that_is_dead_by_its_on_has_no_delay(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": {"after": delayed("1h", on="failure")}}))
    (run,) = platform.runs(platform.send())
    assert (run["status"], statuses(run)["b"]) == ("completed", "skipped")


# --- several delays --------------------------------------------------------------------------------------------------


def test_two_delays_after_one_parent_end_at_their_own_times(platform: Platform) -> None:
    steps = {"a": {}, "b": {"after": delayed("1h")}, "c": {"after": delayed("2h")}, "d": {"after": delayed("1h")}}
    platform.deploy(function(steps))
    (run,) = platform.runs(platform.send())
    platform.travel("1h")
    assert statuses(platform.run(run["id"])) == {"a": "completed", "b": "completed", "c": "waiting", "d": "completed"}
    platform.travel("1h")
    assert platform.run(run["id"])["status"] == "completed"


@pytest.mark.parametrize(("join", "hours"), [("merge", 2), ("all", 2), ("first", 1)])
def test_two_delays_between_one_parent_and_one_step(platform: Platform, join: str, hours: int) -> None:
    platform.deploy(function({"a": {}, "b": {"after": [delayed("1h"), delayed("2h")], "join": join}}))
    (run,) = platform.runs(platform.send())
    platform.travel("1d")
    run = platform.run(run["id"])
    assert queued_at(run, "b") == timedelta(hours=hours)
    assert len(run["steps"]["b"]["attempts"]) == 1
    assert moment(run["ended_at"]) == START + timedelta(hours=hours)


def test_a_delay_dies_when_its_step_is_skipped(platform: Platform) -> None:
    after = [delayed("1h"), {"step": "a", "if": "false"}]
    platform.deploy(function({"a": {}, "b": {"after": after, "join": "all"}}))
    (run,) = platform.runs(platform.send())
    assert (run["status"], statuses(run)["b"]) == ("completed", "skipped")
    assert (edge(run, "b")["status"], edge(run, "b")["state"]) == ("dead", "dropped")
    platform.travel("2h")
    assert platform.run(run["id"]) == run


# --- restarts --------------------------------------------------------------------------------------------------------


def test_a_delay_continues_after_a_restart(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": {"after": delayed("1h")}}))
    (run,) = platform.runs(platform.send())
    until = edge(run, "b")["until"]
    platform.restart("20m")
    platform.settle()
    run = platform.run(run["id"])
    assert (statuses(run)["b"], edge(run, "b")["until"]) == ("waiting", until)
    platform.travel("40m")
    run = platform.run(run["id"])
    assert (run["status"], queued_at(run, "b")) == ("completed", timedelta(hours=1))


def test_a_delay_that_ends_during_downtime_is_over_after_the_restart(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": {"after": delayed("1h")}, "c": {"after": delayed("1h", "b")}}))
    (run,) = platform.runs(platform.send())
    platform.restart("3h")
    platform.settle()
    run = platform.run(run["id"])
    assert statuses(run) == {"a": "completed", "b": "completed", "c": "waiting"}
    assert queued_at(run, "b") == timedelta(hours=3)

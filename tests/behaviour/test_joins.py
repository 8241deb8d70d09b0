"""Joins: when a step with several edges starts, and when it is skipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.behaviour.words import Json, Platform, function, has, script, statuses

FALSE = "event.name == 'never'"
JOINS = ("merge", "all", "first")


def attempts(run: Json, step_id: str) -> int:
    return len(run["steps"][step_id]["attempts"])


def edges(run: Json, step_id: str) -> list[str]:
    return [edge["status"] for edge in run["steps"][step_id]["after"]]


# --- starting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("join", JOINS)
def test_a_step_runs_once_however_many_edges_are_satisfied(platform: Platform, join: str) -> None:
    platform.deploy(function({"a": {}, "b": {}, "c": {"after": ["a", "b"], "join": join}}))
    (run,) = platform.runs(platform.send())
    assert statuses(run) == {"a": "completed", "b": "completed", "c": "completed"}
    assert attempts(run, "c") == 1


def test_merge_is_the_default_join(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": {"after": ["a", {"step": "$trigger", "if": FALSE}]}}))
    (run,) = platform.runs(platform.send())
    assert edges(run, "b") == ["satisfied", "dead"]
    assert statuses(run)["b"] == "completed"


@pytest.mark.parametrize(("join", "status"), [("merge", "pending"), ("all", "pending"), ("first", "completed")])
def test_only_first_starts_before_the_last_edge_is_settled(
    platform: Platform, tmp_path: Path, join: str, status: str
) -> None:
    gate = tmp_path / "gate"
    platform.deploy(function({"early": {}, "late": {}, "c": {"after": ["early", "late"], "join": join}, "d": "early"}))
    event = platform.send(data=script(late={"wait_for": str(gate)}))
    run = platform.wait(platform.run_of(event), lambda run: has("d", "completed")(run) and has("c", status)(run))
    assert has("late", "running")(run)
    gate.touch()
    (run,) = platform.runs(event)
    assert set(statuses(run).values()) == {"completed"}


@pytest.mark.parametrize(("join", "status"), [("merge", "pending"), ("all", "skipped"), ("first", "pending")])
def test_only_all_is_skipped_at_the_first_dead_edge(platform: Platform, tmp_path: Path, join: str, status: str) -> None:
    gate = tmp_path / "gate"
    after = [{"step": "early", "if": FALSE}, "late"]
    platform.deploy(function({"early": {}, "late": {}, "c": {"after": after, "join": join}, "d": "early"}))
    event = platform.send(data=script(late={"wait_for": str(gate)}))
    run = platform.wait(platform.run_of(event), has("d", "completed"))
    assert statuses(run)["c"] == status
    gate.touch()
    (run,) = platform.runs(event)
    assert statuses(run)["c"] == ("skipped" if join == "all" else "completed")
    assert run["status"] == "completed"


@pytest.mark.parametrize(("join", "expected"), [("merge", "completed"), ("all", "skipped"), ("first", "completed")])
def test_a_dead_edge_stops_all_but_not_merge_or_first(platform: Platform, join: str, expected: str) -> None:
    platform.deploy(function({"a": {}, "b": {}, "c": {"after": ["a", {"step": "b", "if": FALSE}], "join": join}}))
    (run,) = platform.runs(platform.send())
    assert statuses(run)["c"] == expected
    assert run["status"] == "completed"


@pytest.mark.parametrize("join", JOINS)
def test_a_step_whose_edges_are_all_dead_is_skipped(platform: Platform, join: str) -> None:
    after = [{"step": "a", "if": FALSE}, {"step": "b", "on": "failure"}]
    platform.deploy(function({"a": {}, "b": {}, "c": {"after": after, "join": join}}))
    (run,) = platform.runs(platform.send())
    assert statuses(run) == {"a": "completed", "b": "completed", "c": "skipped"}
    assert (run["status"], attempts(run, "c")) == ("completed", 0)


# --- skipped parents -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("join", "expected"), [("merge", "completed"), ("all", "skipped"), ("first", "completed")])
def test_the_edges_of_a_skipped_step_are_dead(platform: Platform, join: str, expected: str) -> None:
    platform.deploy(
        function({"a": {}, "b": {"after": {"step": "a", "if": FALSE}}, "c": {"after": ["a", "b"], "join": join}})
    )
    (run,) = platform.runs(platform.send())
    assert statuses(run) == {"a": "completed", "b": "skipped", "c": expected}
    assert edges(run, "c")[1] == "dead"


@pytest.mark.parametrize("on", ["success", "failure", "always"])
def test_no_kind_of_edge_follows_a_skipped_step(platform: Platform, on: str) -> None:
    steps = {"a": {"after": {"step": "$trigger", "if": FALSE}}, "b": {"after": {"step": "a", "on": on}}}
    platform.deploy(function(steps))
    (run,) = platform.runs(platform.send())
    assert statuses(run) == {"a": "skipped", "b": "skipped"}


def test_a_run_whose_steps_are_all_skipped_is_completed_with_an_empty_output(platform: Platform) -> None:
    platform.deploy(function({"a": {"after": {"step": "$trigger", "if": FALSE}}, "b": "a", "c": ["a", "b"]}))
    (run,) = platform.runs(platform.send())
    assert set(statuses(run).values()) == {"skipped"}
    assert (run["status"], run["output"], run["started_at"]) == ("completed", {}, None)
    assert run["ended_at"] is not None


def test_skipping_propagates_along_a_long_chain(platform: Platform) -> None:
    chain = {f"s{i}": [f"s{i - 1}"] for i in range(1, 300)}
    first = {"after": {"step": "$trigger", "if": FALSE}}
    platform.deploy(function({"s0": first, **chain, "end": ["s299", "$trigger"]}))
    (run,) = platform.runs(platform.send())
    assert statuses(run)["s299"] == "skipped"
    assert statuses(run)["end"] == "completed"


# --- diamonds --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("join", "expected"), [("merge", "completed"), ("all", "skipped"), ("first", "completed")])
def test_a_diamond_with_a_false_branch(platform: Platform, join: str, expected: str) -> None:
    ways = {way: {"after": {"step": "top", "if": f"response.way == '{way}'"}} for way in ("left", "right")}
    platform.deploy(function({"top": {}, **ways, "end": {"after": ["left", "right"], "join": join}}))
    (run,) = platform.runs(platform.send(data=script(top={"return": {"way": "left"}})))
    assert statuses(run) == {"top": "completed", "left": "completed", "right": "skipped", "end": expected}
    assert run["status"] == "completed"


def test_a_diamond_sees_the_outputs_of_the_branch_that_ran(platform: Platform) -> None:
    skipped = {"after": {"step": "top", "if": FALSE}}
    platform.deploy(function({"top": {}, "left": "top", "right": skipped, "end": ["left", "right"]}))
    (run,) = platform.runs(platform.send(data=script(end={"input": True})))
    assert run["output"]["end"]["steps"] == {"top": {"step": "top"}, "left": {"step": "left"}}


# --- one parent, several edges ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("join", "conditions", "expected"),
    [
        ("merge", ["true", "true"], "completed"),
        ("merge", ["true", FALSE], "completed"),
        ("merge", [FALSE, FALSE], "skipped"),
        ("all", ["true", "true"], "completed"),
        ("all", ["true", FALSE], "skipped"),
        ("first", [FALSE, "true"], "completed"),
    ],
)
def test_the_same_parent_can_appear_twice(platform: Platform, join: str, conditions: list[str], expected: str) -> None:
    after = [{"step": "a", "if": condition} for condition in conditions]
    platform.deploy(function({"a": {}, "b": {"after": after, "join": join}}))
    (run,) = platform.runs(platform.send())
    assert statuses(run)["b"] == expected
    assert attempts(run, "b") == (1 if expected == "completed" else 0)


def test_one_parent_can_have_a_success_and_a_failure_edge(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": {"after": ["a", {"step": "a", "on": "failure"}]}}))
    for act in ({}, {"raise": "no"}):
        (run,) = platform.runs(platform.send(data=script(a=act)))
        assert (run["status"], statuses(run)["b"], attempts(run, "b")) == ("completed", "completed", 1)


# --- first -----------------------------------------------------------------------------------------------------------


def test_first_ends_the_other_edges_while_their_parents_keep_running(platform: Platform, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    platform.deploy(function({"early": {}, "late": {}, "c": {"after": ["late", "early"], "join": "first"}}))
    event = platform.send(data=script(late={"wait_for": str(gate)}, c={"input": True}))
    run = platform.wait(platform.run_of(event), has("c", "completed"))
    assert edges(run, "c") == ["dead", "satisfied"]
    assert (run["status"], statuses(run)["late"]) == ("running", "running")
    gate.touch()
    (run,) = platform.runs(event)
    assert (run["status"], statuses(run)["late"], attempts(run, "c")) == ("completed", "completed", 1)
    assert run["output"]["c"]["steps"] == {"early": {"step": "early"}}  # the steps that had ended when it started
    assert run["steps"]["late"]["output"] == {"step": "late"}


def test_first_ends_a_delay_that_is_no_longer_needed(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": {"after": [{"step": "a", "wait": "1h"}, "a"], "join": "first"}}))
    (run,) = platform.runs(platform.send())
    assert edges(run, "b") == ["dead", "satisfied"]
    assert run["steps"]["b"]["after"][0]["state"] == "dropped"
    assert run["status"] == "completed"
    platform.travel("2h")
    assert platform.run(run["id"]) == run


# --- many steps ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("join", JOINS)
def test_twenty_parallel_steps_between_a_fan_out_and_a_fan_in(platform: Platform, join: str) -> None:
    wide = {f"w{i}": "out" for i in range(20)}
    platform.deploy(function({"out": {}, **wide, "in": {"after": list(wide), "join": join}}))
    (run,) = platform.runs(platform.send(data=script(**{"in": {"input": True}})))
    assert statuses(run) == dict.fromkeys(["out", *wide, "in"], "completed")
    assert all(attempts(run, step_id) == 1 for step_id in run["steps"])
    if join != "first":
        assert len(run["output"]["in"]["steps"]) == 21


def test_the_output_of_a_run_contains_the_outputs_of_its_completed_leaves(platform: Platform) -> None:
    skipped = {"after": {"step": "a", "if": FALSE}}
    steps = {"a": {}, "b": "a", "c": "a", "d": skipped, "e": "a", "f": {"after": {"step": "e", "on": "failure"}}}
    platform.deploy(function({**steps, "alone": {}}))
    (run,) = platform.runs(platform.send(data=script(e={"raise": "no"}, b={"return": None}, alone={"return": [1]})))
    assert run["status"] == "completed"
    assert run["output"] == {"b": None, "c": {"step": "c"}, "f": {"step": "f"}, "alone": [1]}


def test_a_first_join_starts_by_the_direct_edge_even_if_the_awaited_event_has_come(platform: Platform) -> None:
    wait = {"event": "paid", "ttl": "1h"}
    after = [{"step": "a", "async": wait}, "a"]
    gate = {"after": after, "join": "first"}
    platform.deploy(function({"a": {"after": [{"step": "$trigger", "wait": "1m"}]}, "b": gate}))
    event = platform.send("go", {"script": {"b": [{"input": True}]}})
    platform.settle()
    platform.send("paid")
    platform.travel("1m")
    (run,) = platform.runs(event)
    assert run["status"] == "completed"
    assert run["steps"]["b"]["output"]["async"] is None

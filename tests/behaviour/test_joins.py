"""Joins: when a step with several edges starts, and when it is skipped."""

from __future__ import annotations

import pytest

from tests.behaviour.words import Platform, function, statuses

FALSE = "event.name == 'never'"


def test_a_merge_waits_for_every_edge_and_runs_once(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": {}, "c": ["a", "b"]}))
    (run,) = platform.runs(platform.send())
    assert statuses(run) == {"a": "completed", "b": "completed", "c": "completed"}
    assert len(run["steps"]["c"]["attempts"]) == 1


@pytest.mark.parametrize(("join", "expected"), [("merge", "completed"), ("all", "skipped"), ("first", "completed")])
def test_a_dead_edge_is_no_obstacle_to_merge_and_first_but_to_all(platform: Platform, join: str, expected: str) -> None:
    platform.deploy(function({"a": {}, "b": {}, "c": {"after": ["a", {"step": "b", "if": FALSE}], "join": join}}))
    (run,) = platform.runs(platform.send())
    assert statuses(run)["c"] == expected
    assert run["status"] == "completed"

"""Tests the graph of steps, also for invalid definitions."""

from __future__ import annotations

from typing import Any

from stepwell.core.definition.graph import Ancestry, cycles, parents_of


def steps(**parents: str) -> dict[str, Any]:
    """Steps by id. `edges`: for each step the ids of the parents, separated by spaces."""
    return {step: {"after": [{"step": parent} for parent in names.split()]} for step, names in parents.items()}


def test_all_steps_before_a_step_are_ancestors_at_any_distance() -> None:
    ancestry = Ancestry(steps(a="", b="a", c="b", d="c a", other=""))
    assert ancestry.of("d") == {"a", "b", "c", "d"}
    assert ancestry.of("c") == {"a", "b", "c"}
    assert ancestry.of("a") == {"a"}
    assert ancestry.of("d") == {"a", "b", "c", "d"}  # from the cache


def test_the_steps_of_a_cycle_are_ancestors_of_each_other() -> None:
    ancestry = Ancestry(steps(a="c", b="a", c="b", d="a"))
    assert ancestry.of("b") == {"a", "b", "c"}
    assert ancestry.of("d") == {"a", "b", "c", "d"}


def test_parents_are_other_steps_that_exist() -> None:
    assert parents_of(steps(a="", b="a nobody b $trigger a")) == {"a": [], "b": ["a", "a"]}


def test_every_cycle_is_one_problem() -> None:
    found = list(cycles(steps(a="", b="a c", c="b", d="d2", d2="d", e="d")))
    assert len(found) == 2
    assert list(cycles(steps(a="", b="a", c="a b"))) == []

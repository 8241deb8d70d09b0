"""Which steps come before which, also in a definition that is wrong."""

from __future__ import annotations

from typing import Any

from stepwell.core.definition.graph import Ancestry, cycles, parents_of


def steps(**parents: str) -> dict[str, Any]:
    """Steps and their parents, with blanks between them."""
    return {step: {"after": [{"step": parent} for parent in names.split()]} for step, names in parents.items()}


def test_all_that_come_before_a_step_are_its_ancestors_however_far_up() -> None:
    ancestry = Ancestry(steps(a="", b="a", c="b", d="c a", other=""))
    assert ancestry.of("d") == {"a", "b", "c", "d"}
    assert ancestry.of("c") == {"a", "b", "c"}
    assert ancestry.of("a") == {"a"}
    assert ancestry.of("d") == {"a", "b", "c", "d"}  # asked for again


def test_of_a_cycle_all_steps_come_before_each_other() -> None:
    ancestry = Ancestry(steps(a="c", b="a", c="b", d="a"))
    assert ancestry.of("b") == {"a", "b", "c"}
    assert ancestry.of("d") == {"a", "b", "c", "d"}


def test_parents_are_other_steps_that_exist() -> None:
    assert parents_of(steps(a="", b="a nobody b $trigger a")) == {"a": [], "b": ["a", "a"]}


def test_every_cycle_is_one_problem() -> None:
    found = list(cycles(steps(a="", b="a c", c="b", d="d2", d2="d", e="d")))
    assert len(found) == 2
    assert list(cycles(steps(a="", b="a", c="a b"))) == []

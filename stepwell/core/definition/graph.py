"""The graph of a definition's steps: parents, ancestors and cycles.

The functions work on the data as users wrote it, and ignore values of the wrong type: other checks report them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stepwell.core.definition.problems import Problem

Raw = dict[str, Any]
Steps = dict[str, Raw]


class Ancestry:
    """The ancestors of steps, computed on demand and cached."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self._parents = parents_of(steps)
        self._known: dict[str, frozenset[str]] = {}

    def of(self, step_id: str) -> frozenset[str]:
        """The step and all its ancestors. Works for graphs with cycles too."""
        if step_id not in self._known:
            seen, todo = {step_id}, [step_id]
            while todo:
                fresh = [parent for parent in self._parents[todo.pop()] if parent not in seen]
                seen.update(fresh)
                todo += fresh
            self._known[step_id] = frozenset(seen)
        return self._known[step_id]


def parents_of(steps: Steps) -> dict[str, list[str]]:
    """The parents of every step. Parents that do not exist are left out, and so is the step itself."""
    return {
        step_id: [
            edge["step"]
            for _, edge in entries(step.get("after"))
            if isinstance(edge.get("step"), str) and edge["step"] in steps and edge["step"] != step_id
        ]
        for step_id, step in steps.items()
    }


def cycles(steps: Steps) -> Iterator[Problem]:
    """One problem for each cycle. Of cycles that share a step, only one is reported."""
    parents = parents_of(steps)
    while True:
        parents = _without_ends(parents)
        if not parents:
            return
        walk = [next(iter(parents))]
        while walk[-1] not in walk[:-1]:
            walk.append(parents[walk[-1]][0])
        cycle = walk[walk.index(walk[-1]) :][::-1]
        last = cycle[-1]
        at = next(i for i, edge in entries(steps[last].get("after")) if edge.get("step") == cycle[-2])
        message = f"the steps form a cycle: {' -> '.join(cycle)}; remove one of these edges"
        yield Problem(("steps", last, "after", at, "step"), message)
        parents = {step: [p for p in before if p not in cycle] for step, before in parents.items() if step not in cycle}


def _without_ends(parents: dict[str, list[str]]) -> dict[str, list[str]]:
    """The graph after removing, repeatedly, every step without parents. Only cycles and their descendants remain."""
    children: dict[str, list[str]] = {step: [] for step in parents}
    for step, before in parents.items():
        for parent in before:
            children[parent].append(step)
    missing = {step: len(before) for step, before in parents.items()}
    free = [step for step, count in missing.items() if not count]
    for step in free:
        for child in children[step]:
            missing[child] -= 1
            if not missing[child]:
                free.append(child)
    gone = set(free)
    return {step: [p for p in before if p not in gone] for step, before in parents.items() if step not in gone}


def objects(value: object) -> Steps:
    if not isinstance(value, dict):
        return {}
    return {key: item for key, item in value.items() if isinstance(key, str) and isinstance(item, dict)}


def entries(value: object) -> Iterator[tuple[int, Raw]]:
    if isinstance(value, list):
        yield from ((i, item) for i, item in enumerate(value) if isinstance(item, dict))

"""The event types of a project: those in `schemas` folders, and those in the triggers of functions.

The version of a trigger's type is the one in the schema (`x-stepwell-v`, or the constant that `v` must have). Without
one, the version is derived from the schema's content, so that a changed schema is a new version.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from stepwell.core.definition.problems import Pointer, Problem
from stepwell.event_types.changes import version_of
from stepwell.event_types.registry import Policy, TypeVersion
from stepwell.event_types.schema import POLICY
from stepwell.project.load import LoadedFunction
from stepwell.project.schemas import find_types
from stepwell.project.source import PlacedProblem

Placer = Callable[[Pointer, str], PlacedProblem]


@dataclass(frozen=True, slots=True)
class ProjectTypes:
    """`types`: oldest version first.

    `problems`, `warnings`: see `schemas.FoundTypes`. `placers`: by name and version, a function that gives the file,
    line and column of a place in the schema.
    """

    types: list[TypeVersion]
    problems: list[PlacedProblem]
    warnings: list[PlacedProblem]
    placers: Mapping[tuple[str, str], Placer]

    def placed(self, version: TypeVersion, problem: Problem) -> PlacedProblem:
        """The problem with the file, line and column in the version's schema."""
        return self.placers[version.name, version.version](problem.pointer, problem.message)


def project_types(paths: Iterable[Path], functions: Iterable[LoadedFunction]) -> ProjectTypes:
    """The types in `schemas` folders at or below the paths, and those of these functions' triggers."""
    found = find_types(paths)
    types = [
        TypeVersion(event_type.name, event_type.v, event_type.schema, _policy(event_type.policy))
        for event_type in found.types
    ]
    placers: dict[tuple[str, str], Placer] = {
        (event_type.name, event_type.v): event_type.placed for event_type in found.types
    }
    for version, placer in _of_triggers(functions):
        if (version.name, version.version) not in placers:
            placers[version.name, version.version] = placer
            types.append(version)
    return ProjectTypes(types, found.problems, found.warnings, placers)


def unannounced_breaks(types: ProjectTypes) -> list[PlacedProblem]:
    """Problems of types whose newest version refuses events that the version before accepts, without setting a policy.

    A server that has the version before refuses a plain push of such a type.
    """
    from stepwell.event_types.changes import refused_by, says_policy, surprise  # imported late: slow to import

    found = []
    for name in dict.fromkeys(version.name for version in types.types):
        before, newest = [None, *(version for version in types.types if version.name == name)][-2:]
        if before is None or newest is None or before.policy is Policy.OFF:
            continue
        if says_policy(newest.policy, before.policy):
            continue
        if breaking := refused_by(newest.schema, before.schema):
            message = surprise(newest, before.version, breaking)
            found.append(types.placed(newest, Problem(breaking[0].pointer, message)))
    return found


def _of_triggers(functions: Iterable[LoadedFunction]) -> Iterator[tuple[TypeVersion, Placer]]:
    for function in functions:
        for i, trigger in enumerate(function.normalised()["triggers"]):
            schema = (trigger.get("definition") or {}).get("def")
            if schema is not None:
                policy = schema.get(POLICY) if isinstance(schema, dict) else None
                version = TypeVersion(trigger["event"], version_of(schema), schema, _policy(policy))
                yield version, functools.partial(_placed_in_trigger, function, i)


def _placed_in_trigger(function: LoadedFunction, i: int, pointer: Pointer, message: str) -> PlacedProblem:
    return function.placed(("triggers", i, "definition", "def", *pointer), message)


def _policy(name: str | None) -> Policy | None:
    return None if name is None else Policy(name)

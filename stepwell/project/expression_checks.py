"""Checks the expressions of a project's functions against the types of the events that they use.

Only certain faults are errors. Events are not checked against a type whose policy is `off`, so an expression that does
not fit such a type is only a warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from stepwell.core.definition.problems import Problem
from stepwell.event_types.registry import Policy, TypeDetail
from stepwell.event_types.schema import POLICY, Schema
from stepwell.project.event_types import ProjectTypes
from stepwell.project.load import LoadedFunction
from stepwell.project.source import PlacedProblem


class RegisteredTypes(Protocol):
    """The event types of a server."""

    def read_type(self, name: str) -> TypeDetail | None: ...

    def read_schema(self, name: str, version: str) -> Schema | None: ...


@dataclass(frozen=True, slots=True)
class CheckedExpressions:
    errors: list[PlacedProblem]
    warnings: list[PlacedProblem]


def check_expressions(
    functions: Iterable[LoadedFunction], types: ProjectTypes, registered: RegisteredTypes | None = None
) -> CheckedExpressions:
    """Checks every expression against the types of the project and of the server that it is meant for.

    The version of a type that counts is the one that would count after a push to that server.
    """
    from stepwell.event_types.check import check, doubts  # imports CEL, which is slow
    from stepwell.event_types.impact import event_names

    found = CheckedExpressions([], [])
    for function in functions:
        definition = function.normalised()
        stored_types = [_Type.of(name, types, registered) for name in sorted(event_names(definition))]
        known = {stored_type.name: stored_type.schemas() for stored_type in stored_types if stored_type.versions}
        in_force = {
            stored_type.name: known[stored_type.name]
            for stored_type in stored_types
            if stored_type.versions and not stored_type.is_off
        }
        off = {stored_type.name for stored_type in stored_types if stored_type.is_off}
        wrong = check(_without_types(definition, off), in_force)
        found.errors.extend(_placed(function, wrong))
        rest = [problem for problem in check(definition, known) if problem not in wrong]
        found.warnings.extend(_placed(function, [*rest, *doubts(definition, known)]))
    return found


@dataclass(frozen=True, slots=True)
class _Type:
    """`versions`: oldest first, with the schema, or None if it must still be requested from the server."""

    name: str
    versions: Mapping[str, Schema | None]
    default: str
    is_off: bool
    registered: RegisteredTypes | None

    @classmethod
    def of(cls, name: str, types: ProjectTypes, registered: RegisteredTypes | None) -> _Type:
        detail = registered.read_type(name) if registered is not None else None
        brought = [version for version in types.types if version.name == name]
        versions: dict[str, Schema | None] = dict.fromkeys(
            (version for version, _ in detail.versions) if detail else ()
        )
        versions |= {version.version: version.schema for version in brought}
        policy = next((version.policy for version in reversed(brought) if version.policy is not None), None)
        policy = policy or (detail.policy if detail else Policy.WARN)
        default = (detail.chosen if detail else None) or next(reversed(versions), "")
        return cls(name, versions, default, policy is Policy.OFF, registered)

    def schemas(self) -> Any:
        from stepwell.event_types.check import Versions

        return Versions(self._schema(self.default), lambda: map(self._schema, self.versions))

    def _schema(self, version: str) -> Schema:
        schema = self.versions[version]
        if schema is None and self.registered is not None:
            schema = self.registered.read_schema(self.name, version)
        return True if schema is None else schema


def _without_types(definition: dict[str, Any], off: set[str]) -> dict[str, Any]:
    """The definition without the types of triggers that are `off`."""

    def is_off(trigger: Mapping[str, Any]) -> bool:
        own = trigger.get("definition", {}).get("def")
        stated = own.get(POLICY) if isinstance(own, dict) else None
        return stated == Policy.OFF or (stated is None and trigger.get("event") in off)

    triggers = [
        {name: value for name, value in trigger.items() if name != "definition" or not is_off(trigger)}
        for trigger in definition["triggers"]
    ]
    return {**definition, "triggers": triggers}


def _placed(function: LoadedFunction, problems: Sequence[Problem]) -> Iterator[PlacedProblem]:
    for problem in problems:
        yield function.placed(problem.pointer, f"{problem.pointer[-1]}: {problem.message}")

"""The types that a project brings along: those of its `schemas` folders, and those that triggers carry.

One rule: the type of a trigger has the version that its schema says (`x-stepwell-v`, or what its `v` must be), else one
that is named by its content, so that whoever changes the schema makes a new version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from stepwell.event_types.schema import POLICY, Schema
from stepwell.event_types.types import Policy, TypeVersion
from stepwell.project.load import LoadedFunction
from stepwell.project.schemas import find_types
from stepwell.project.source import PlacedProblem


@dataclass(frozen=True, slots=True)
class ProjectTypes:
    """`types`: the versions of each, in their order. `problems`: files that hold none; `warnings`: as `schemas` has."""

    types: list[TypeVersion]
    problems: list[PlacedProblem]
    warnings: list[PlacedProblem]

    @property
    def newest(self) -> dict[str, Schema]:
        """The schema of each type's newest version."""
        return {its.name: its.schema for its in self.types}


def project_types(paths: Iterable[Path], functions: Iterable[LoadedFunction]) -> ProjectTypes:
    """The types in `schemas` folders at or below the paths, and those of the triggers of these functions."""
    found = find_types(paths)
    types = [TypeVersion(its.name, its.v, its.schema, _policy(its.policy)) for its in found.types]
    known = {(its.name, its.version) for its in types}
    for its in _of_triggers(functions):
        if (its.name, its.version) not in known:
            known.add((its.name, its.version))
            types.append(its)
    return ProjectTypes(types, found.problems, found.warnings)


def wrong_expressions(functions: Iterable[LoadedFunction], schemas: Mapping[str, Schema]) -> list[PlacedProblem]:
    """What expressions of functions ask of events that their types, by name, do not have."""
    from stepwell.event_types.check import check  # who has no types waits for no CEL

    return [
        PlacedProblem(function.file, *function.source.place(its.pointer), its.pointer, its.message)
        for function in functions
        for its in check(function.normalised(), schemas)
    ]


def _of_triggers(functions: Iterable[LoadedFunction]) -> Iterator[TypeVersion]:
    for function in functions:
        for trigger in function.normalised()["triggers"]:
            schema = (trigger.get("definition") or {}).get("def")
            if schema is not None:
                policy = schema.get(POLICY) if isinstance(schema, dict) else None
                yield TypeVersion(trigger["event"], _version(schema), schema, _policy(policy))


def _policy(name: str | None) -> Policy | None:
    return None if name is None else Policy(name)


def _version(schema: Any) -> str:
    given = schema if isinstance(schema, dict) else {}
    properties = given.get("properties")
    v = properties.get("v") if isinstance(properties, dict) else None
    for said in (given.get("x-stepwell-v"), v.get("const") if isinstance(v, dict) else None):
        if isinstance(said, str) and said:
            return said
    return "def-" + hashlib.sha256(orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]

"""Event types on disk: the files in `schemas/` folders, beside functions or inside of their folders.

A file's path gives the name and version of the type. `schemas/order/placed.2026-11-23.1.schema.json` is version
2026-11-23.1 of order/placed: the folders are the parts of the name. The version starts at the first part after a dot
that begins with a digit, or with v and a digit. A name or version that a path cannot express is given in the schema, as
`x-stepwell-event` and `x-stepwell-v`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwell.core.definition import field_validators
from stepwell.core.definition.problems import Pointer, shown
from stepwell.event_types.schema import POLICY, Schema
from stepwell.event_types.validation import BadSchema, check_schema
from stepwell.project.folders import folders_named
from stepwell.project.json_text import parse_json
from stepwell.project.leftovers import is_leftover
from stepwell.project.source import LoadError, PlacedProblem, Source, SourceError

FOLDER = "schemas"
SUFFIX = ".schema.json"
_EVENT, _V = "x-stepwell-event", "x-stepwell-v"
_LARGEST = 1024 * 1024
_VERSION = re.compile(r"v?\d")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class EventType:
    """One version of an event's type. `policy` is None if the file does not set it."""

    name: str
    v: str
    schema: Schema
    policy: str | None
    file: Path
    source: Source

    def placed(self, pointer: Pointer, message: str) -> PlacedProblem:
        """A problem at a place in the schema."""
        return PlacedProblem(self.file, *self.source.place(pointer), pointer, message)


@dataclass(frozen=True, slots=True)
class FoundTypes:
    """`types`: sorted by name, then oldest version first.

    `warnings`: files that look like types, but have no version.
    """

    types: list[EventType]
    problems: list[PlacedProblem]
    warnings: list[PlacedProblem]

    def by_name(self) -> dict[str, list[EventType]]:
        """The versions of each event type, oldest first."""
        found: dict[str, list[EventType]] = {}
        for event_type in self.types:
            found.setdefault(event_type.name, []).append(event_type)
        return found


def find_types(paths: Iterable[Path]) -> FoundTypes:
    """Reads the types in `schemas` folders at or below each path.

    If a path is a function's folder, also those beside it.
    """
    types: dict[tuple[str, str], EventType] = {}
    problems: list[PlacedProblem] = []
    warnings: list[PlacedProblem] = []
    for folder in sorted(folders_named(FOLDER, paths)):
        for file in sorted(folder.rglob("*" + SUFFIX)):
            if is_leftover(file.name):
                continue
            try:
                event_type = read_type(file, folder)
            except LoadError as error:
                problems += error.problems
                continue
            if event_type is None:
                name = f"{file.name.removesuffix(SUFFIX)}.1{SUFFIX}"
                message = f"has no version in its name, so it is not read as an event type; rename it to {name}"
                warnings.append(PlacedProblem(file, 1, 1, (), message))
                continue
            other = types.setdefault((event_type.name, event_type.v), event_type)
            if other is not event_type and other.schema != event_type.schema:
                problems.append(
                    event_type.placed(
                        (),
                        f"{event_type.name} {event_type.v} has a different schema in {other.file}; remove one of them",
                    )
                )
    return FoundTypes(
        sorted(types.values(), key=lambda event_type: (event_type.name, version_key(event_type.v))), problems, warnings
    )


def read_type(file: Path, folder: Path) -> EventType | None:
    """Reads the type in a file below a `schemas` folder.

    Returns None if there is no version in the name. Raises LoadError.
    """
    source = read_schema(file)
    schema = source.data
    given = schema if isinstance(schema, dict) else {}
    name, v = _named(file, folder)
    name, v = given.get(_EVENT, name), given.get(_V, v)
    if v is None:
        return None
    try:
        return EventType(_event(name), _version(v), schema, given.get(POLICY), file, source)
    except ValueError as error:
        raise LoadError([PlacedProblem(file, *source.place(()), (), str(error))]) from None


def read_schema(file: Path) -> Source:
    """Reads a schema from a file. Raises LoadError with all problems of the file."""
    try:
        if file.stat().st_size > _LARGEST:
            raise SourceError("is larger than 1 MB; leave out what the readers of the event do not need", 1, 1)
        source = parse_json(file.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise LoadError([PlacedProblem(file, 1, 1, (), f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError:
        raise LoadError([PlacedProblem(file, 1, 1, (), "is not in UTF-8; save it as UTF-8")]) from None
    except SourceError as error:
        raise LoadError([PlacedProblem(file, error.line, error.column, (), error.message)]) from None
    if problems := schema_problems(source.data, file, source, ()):
        raise LoadError(problems)
    return source


def schema_problems(schema: Any, file: Path, source: Source, at: Pointer) -> list[PlacedProblem]:
    """The reasons why the value at a place of a file cannot be the schema of an event."""
    try:
        check_schema(schema)
    except BadSchema as bad:
        found = [((*at, *problem.pointer), problem.message) for problem in bad.problems]
    else:
        return []
    return [PlacedProblem(file, *source.place(pointer), pointer, _about(pointer, words)) for pointer, words in found]


def version_key(v: str) -> list[tuple[int, int, str]]:
    """A sort key for versions that compares numbers as numbers: 2026-11-23.2 comes before 2026-11-23.10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", v) if part]


def _about(pointer: Pointer, message: str) -> str:
    return f"{pointer[-1]}: {message}" if pointer and str(pointer[-1]) not in message else message


def _event(name: Any) -> str:
    if not isinstance(name, str) or not 1 <= len(name) <= 256:
        raise ValueError(f"{shown(name)} is not an event name; write a text of 1 to 256 characters")
    if name.startswith("stepwell/"):
        raise ValueError("event names that begin with stepwell/ are reserved for the engine, and need no type")
    return field_validators.exact_event(name)


def _version(v: Any) -> str:
    if not isinstance(v, str) or not 1 <= len(v) <= 128 or _CONTROL.search(v):
        raise ValueError(f"{shown(v)} is not a version; write a text of 1 to 128 characters, such as 2026-11-23.1")
    return v


def _named(file: Path, folder: Path) -> tuple[str, str | None]:
    *folders, last = file.relative_to(folder).parts
    parts = last.removesuffix(SUFFIX).split(".")
    at = next((i for i, part in enumerate(parts) if i and _VERSION.match(part)), len(parts))
    return "/".join([*folders, ".".join(parts[:at])]), ".".join(parts[at:]) or None

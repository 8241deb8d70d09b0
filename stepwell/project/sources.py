"""The sources on disk: the files in `sources/` folders, beside functions or inside of their folders.

The file's name is the source's name: `sources/orders.yaml` is the source orders.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwell.extras import is_installed
from stepwell.project.load import read_source as read_text
from stepwell.project.rule_files import rule_files
from stepwell.project.search import Tree
from stepwell.project.source import LoadError, PlacedProblem

FOLDER = "sources"
EXTRAS = {
    "celery": ("celery", "celery"),
    "kafka": ("confluent_kafka", "kafka"),
    "pubsub": ("google.pubsub_v1", "pubsub"),
    "rabbitmq": ("kombu", "rabbitmq"),
    "redis": ("redis", "redis"),
    "sqs": ("boto3", "aws"),
}
"""By type: the module that reads it, and the extra of this package that installs the module."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One source. `warnings`: things that are allowed, but probably not intended."""

    name: str
    source: dict[str, Any]
    file: Path
    warnings: list[PlacedProblem]


@dataclass(frozen=True, slots=True)
class FoundSources:
    """`sources`: sorted by name. `problems`: of the files that could not be read."""

    sources: list[SourceFile]
    problems: list[PlacedProblem]

    @property
    def warnings(self) -> list[PlacedProblem]:
        return [warning for source in self.sources for warning in source.warnings]


def find_sources(paths: Iterable[Path]) -> FoundSources:
    """Reads the sources in `sources` folders at or below each path.

    If a path is a function's folder, also those beside it.
    """
    found: dict[str, SourceFile] = {}
    problems: list[PlacedProblem] = []
    for file in rule_files(FOLDER, Tree.of(paths)):
        try:
            source = read_source(file)
        except LoadError as error:
            problems += error.problems
            continue
        other = found.setdefault(source.name, source)
        if other is not source:
            message = f"the source {source.name} is also defined in {other.file}; remove one of them"
            problems.append(PlacedProblem(file, 1, 1, (), message))
    return FoundSources([found[name] for name in sorted(found)], problems)


def read_source(file: Path) -> SourceFile:
    """Reads the source in a file. Raises LoadError with all problems of the file."""
    from stepwell.core.definition.definition import DefinitionError  # imported only where sources are used: it is slow
    from stepwell.core.sources.definition import parse_source, warnings

    text = read_text(file)
    try:
        source = parse_source(text.data, file.stem, text.written)
    except DefinitionError as wrong:
        problems = [PlacedProblem(file, *text.place(p.pointer), p.pointer, p.message) for p in wrong.problems]
        raise LoadError(problems) from None
    doubts = [PlacedProblem(file, *text.place(p.pointer), p.pointer, p.message) for p in warnings(source)]
    if (missing := missing_extra(source["type"])) is not None:
        doubts.append(PlacedProblem(file, *text.place(("type",)), ("type",), missing))
    return SourceFile(source["name"], source, file, doubts)


def missing_extra(kind: str) -> str | None:
    """What to install for sources of this type; None if it is installed."""
    module, extra = EXTRAS[kind]
    return None if is_installed(module) else f"sources of type {kind} need a library: pip install 'stepwell[{extra}]'"

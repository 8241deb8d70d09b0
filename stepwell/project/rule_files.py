"""Files in folders of one name beside functions: the rules of webhooks, and the sources.

The file's name is the name of the rule in it: `webhooks/github.yaml` is the webhook github.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepwell.project.folders import folders_named
from stepwell.project.leftovers import is_leftover
from stepwell.project.load import read_source
from stepwell.project.search import Tree, is_function
from stepwell.project.source import LoadError, PlacedProblem, Source

if TYPE_CHECKING:
    from stepwell.core.definition.problems import Pointer, Problem

_SUFFIXES = frozenset({".json", ".yaml", ".yml"})

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RuleFile:
    """A rule of a file. `warnings`: things that are allowed, but probably not intended."""

    name: str
    rule: Json
    file: Path
    source: Source
    warnings: list[PlacedProblem]

    def placed(self, pointer: Pointer, message: str) -> PlacedProblem:
        """A problem at a place in the rule."""
        return PlacedProblem(self.file, *self.source.place(pointer), pointer, message)


@dataclass(frozen=True, slots=True)
class FoundRules:
    """`rules`: sorted by name. `problems`: of the files that could not be read."""

    rules: list[RuleFile]
    problems: list[PlacedProblem]

    @property
    def warnings(self) -> list[PlacedProblem]:
        return [warning for rule in self.rules for warning in rule.warnings]


def find_rules(folder: str, paths: Iterable[Path], read: Callable[[Path], RuleFile]) -> FoundRules:
    """Reads the rules in folders of this name at or below each path.

    If a path is a function's folder, also those beside it.
    """
    found: dict[str, RuleFile] = {}
    problems: list[PlacedProblem] = []
    for file in rule_files(folder, Tree.of(paths)):
        try:
            rule = read(file)
        except LoadError as error:
            problems += error.problems
            continue
        other = found.setdefault(rule.name, rule)
        if other is not rule:
            what = folder.removesuffix("s")
            message = f"the {what} {rule.name} is also defined in {other.file}; remove one of them"
            problems.append(PlacedProblem(file, 1, 1, (), message))
    return FoundRules([found[name] for name in sorted(found)], problems)


def read_rule(file: Path, parse: Callable[..., Json], doubts_of: Callable[[Json], Iterable[Problem]]) -> RuleFile:
    """Reads the rule in a file. Raises LoadError with all problems of the file."""
    from stepwell.core.definition.definition import DefinitionError  # imported only where rules are used: it is slow

    source = read_source(file)

    def placed(problem: Problem) -> PlacedProblem:
        return PlacedProblem(file, *source.place(problem.pointer), problem.pointer, problem.message)

    try:
        rule = parse(source.data, file.stem, source.written)
    except DefinitionError as wrong:
        raise LoadError(list(map(placed, wrong.problems))) from None
    return RuleFile(rule["name"], rule, file, source, list(map(placed, doubts_of(rule))))


def rule_files(folder_name: str, tree: Tree) -> Iterator[Path]:
    """The JSON and YAML files in the folders with this name. Such a folder deeper in a function's code is not read."""
    seen: set[Path] = set()  # a folder may be found by a relative and by an absolute path
    for folder in sorted(folders_named(folder_name, tree)):
        if _is_code(folder, tree) or folder.resolve() in seen:
            continue
        seen.add(folder.resolve())
        for file in sorted(folder.iterdir()):
            if file.name.startswith(".") or is_leftover(file.name):
                continue
            if file.suffix in _SUFFIXES and file.is_file():
                yield file


def _is_code(folder: Path, paths: Iterable[Path]) -> bool:
    """Whether the folder is part of a function's code, that is, deeper than beside the definition."""
    tops = {path.parent if path.is_file() else path for path in paths}
    above = [parent for parent in folder.parents[1:] if any(top == parent or top in parent.parents for top in tops)]
    return any(map(is_function, above))

"""Loads what a test deploys: one function, or a folder of functions, with the types and webhooks beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwell.event_types.registry import TypeVersion
from stepwell.project.event_types import project_types
from stepwell.project.load import LoadedFunction, LoadError, load, load_all
from stepwell.project.rule_files import RuleFile
from stepwell.project.search import NAMES, Tree, is_file, is_function
from stepwell.project.source import PlacedProblem
from stepwell.project.webhooks import find_webhooks
from stepwell.testing.platform import Refused


@dataclass(frozen=True, slots=True)
class Project:
    functions: list[LoadedFunction]
    types: list[TypeVersion]
    webhooks: list[RuleFile]
    is_one: bool  # whether the path is a function, not a folder of functions

    def answer(self, versions: dict[str, int]) -> Any:
        """The return value of `deploy`, from the version of each function."""
        return versions[self.functions[0].definition.id] if self.is_one else versions


def project_at(path: Path | str) -> Project:
    """Loads the function at a path, or all functions below it. Raises Refused."""
    path = Path(path)
    is_one = is_file(path) or is_function(path)
    try:
        functions, tree = ([load(path)], Tree([_folder(path)])) if is_one else _all(path)
    except LoadError as wrong:
        raise _refused(wrong.problems) from None
    types, webhooks = project_types(tree, functions), find_webhooks(tree)
    if problems := [*types.problems, *webhooks.problems]:
        raise _refused(problems)
    return Project(functions, types.types, webhooks.rules, is_one)


def _folder(path: Path) -> Path:
    return path.parent if is_file(path) else path


def _all(path: Path) -> tuple[list[LoadedFunction], Tree]:
    tree = Tree([path])
    functions, errors = load_all(tree)
    if problems := [problem for error in errors for problem in error.problems]:
        raise LoadError(problems)
    if not functions:
        message = f"contains no function; a function's folder has one of {', '.join(NAMES)}"
        raise LoadError([PlacedProblem(path, 1, 1, (), message), *tree.passed_over])
    return functions, tree


def _refused(problems: list[PlacedProblem]) -> Refused:
    """The error that lists each problem with the JSON pointer of its place in the definition."""
    return Refused(
        400,
        [{"pointer": "".join(f"/{p}" for p in problem.pointer), "message": problem.message} for problem in problems],
    )

"""The rules of webhooks on disk: the files in `webhooks/` folders, which stand beside functions or in their folders.

One rule: a file's name is its webhook's, as in `webhooks/github.yaml`. A folder of that name among a function's code is
not meant.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwell.project.folders import folders_called
from stepwell.project.leftovers import is_leftover
from stepwell.project.load import read_source
from stepwell.project.search import Tree, is_function
from stepwell.project.source import LoadError, PlacedProblem

FOLDER = "webhooks"
_SUFFIXES = frozenset({".json", ".yaml", ".yml"})


@dataclass(frozen=True, slots=True)
class WebhookFile:
    """A rule, as it is kept. `warnings`: what is allowed, and probably not meant."""

    name: str
    rule: dict[str, Any]
    file: Path
    warnings: list[PlacedProblem]


@dataclass(frozen=True, slots=True)
class FoundWebhooks:
    """`webhooks`: by name. `problems`: files that hold none."""

    webhooks: list[WebhookFile]
    problems: list[PlacedProblem]

    @property
    def warnings(self) -> list[PlacedProblem]:
        return [warning for webhook in self.webhooks for warning in webhook.warnings]


def find_webhooks(paths: Iterable[Path]) -> FoundWebhooks:
    """The rules in the `webhooks` folders at or below each path; and of a function's folder, those beside it too."""
    paths = Tree.of(paths)
    found: dict[str, WebhookFile] = {}
    problems: list[PlacedProblem] = []
    for folder in sorted(folders_called(FOLDER, paths)):
        if _is_code(folder, paths):
            continue
        for file in sorted(folder.iterdir()):
            if file.name.startswith(".") or is_leftover(file.name):
                continue
            if file.suffix not in _SUFFIXES or not file.is_file():
                continue
            try:
                webhook_file = read_webhook(file)
            except LoadError as error:
                problems += error.problems
                continue
            other = found.setdefault(webhook_file.name, webhook_file)
            if other is not webhook_file:
                message = f"the webhook {webhook_file.name} stands in {other.file}, too; remove one of them"
                problems.append(PlacedProblem(file, 1, 1, (), message))
    return FoundWebhooks([found[name] for name in sorted(found)], problems)


def read_webhook(file: Path) -> WebhookFile:
    """The rule in a file. Raises LoadError with all that is wrong with it."""
    from stepwell.core.definition.definition import DefinitionError  # who has no webhooks waits for none of this
    from stepwell.core.webhooks.definition import parse_webhook, warnings

    source = read_source(file)
    try:
        rule = parse_webhook(source.data, file.stem, source.written)
    except DefinitionError as wrong:
        problems = [PlacedProblem(file, *source.place(p.pointer), p.pointer, p.message) for p in wrong.problems]
        raise LoadError(problems) from None
    doubts = [PlacedProblem(file, *source.place(p.pointer), p.pointer, p.message) for p in warnings(rule)]
    return WebhookFile(rule["name"], rule, file, doubts)


def _is_code(folder: Path, paths: Iterable[Path]) -> bool:
    """Whether it lies in a function's folder, and deeper than beside the definition."""
    tops = {path.parent if path.is_file() else path for path in paths}
    above = [parent for parent in folder.parents[1:] if any(top == parent or top in parent.parents for top in tops)]
    return any(map(is_function, above))

"""The rules of webhooks on disk: the files in `webhooks/` folders, beside functions or inside of their folders.

The file's name is the webhook's name: `webhooks/github.yaml` is the webhook github. A folder named `webhooks` deeper in
a function's code is not read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwell.project.load import read_source
from stepwell.project.rule_files import rule_files
from stepwell.project.search import Tree
from stepwell.project.source import LoadError, PlacedProblem

FOLDER = "webhooks"


@dataclass(frozen=True, slots=True)
class WebhookFile:
    """The rule of one webhook. `warnings`: things that are allowed, but probably not intended."""

    name: str
    rule: dict[str, Any]
    file: Path
    warnings: list[PlacedProblem]


@dataclass(frozen=True, slots=True)
class FoundWebhooks:
    """`webhooks`: sorted by name. `problems`: of the files that could not be read."""

    webhooks: list[WebhookFile]
    problems: list[PlacedProblem]

    @property
    def warnings(self) -> list[PlacedProblem]:
        return [warning for webhook in self.webhooks for warning in webhook.warnings]


def find_webhooks(paths: Iterable[Path]) -> FoundWebhooks:
    """Reads the rules in `webhooks` folders at or below each path.

    If a path is a function's folder, also those beside it.
    """
    found: dict[str, WebhookFile] = {}
    problems: list[PlacedProblem] = []
    for file in rule_files(FOLDER, Tree.of(paths)):
        try:
            webhook_file = read_webhook(file)
        except LoadError as error:
            problems += error.problems
            continue
        other = found.setdefault(webhook_file.name, webhook_file)
        if other is not webhook_file:
            message = f"the webhook {webhook_file.name} is also defined in {other.file}; remove one of them"
            problems.append(PlacedProblem(file, 1, 1, (), message))
    return FoundWebhooks([found[name] for name in sorted(found)], problems)


def read_webhook(file: Path) -> WebhookFile:
    """Reads the rule in a file. Raises LoadError with all problems of the file."""
    from stepwell.core.definition.definition import DefinitionError  # imported only where webhooks are used: it is slow
    from stepwell.core.webhooks.definition import parse_webhook, warnings

    source = read_source(file)
    try:
        rule = parse_webhook(source.data, file.stem, source.written)
    except DefinitionError as wrong:
        problems = [PlacedProblem(file, *source.place(p.pointer), p.pointer, p.message) for p in wrong.problems]
        raise LoadError(problems) from None
    doubts = [PlacedProblem(file, *source.place(p.pointer), p.pointer, p.message) for p in warnings(rule)]
    return WebhookFile(rule["name"], rule, file, doubts)

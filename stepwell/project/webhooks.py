"""The rules of webhooks on disk: the files in `webhooks/` folders, beside functions or inside of their folders."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from stepwell.project.rule_files import FoundRules, RuleFile, find_rules, read_rule


def find_webhooks(paths: Iterable[Path]) -> FoundRules:
    """The rules of webhooks at or below each path."""
    return find_rules("webhooks", paths, read_webhook)


def read_webhook(file: Path) -> RuleFile:
    """Reads the rule in a file. Raises LoadError with all problems of the file."""
    from stepwell.core.webhooks.definition import parse_webhook, warnings  # imported only if used: it is slow

    return read_rule(file, parse_webhook, warnings)

"""The sources on disk: the files in `sources/` folders, beside functions or inside of their folders."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from stepwell.project.rule_files import FoundRules, RuleFile, find_rules, read_rule


def find_sources(paths: Iterable[Path]) -> FoundRules:
    """The sources at or below each path."""
    return find_rules("sources", paths, read_source)


def read_source(file: Path) -> RuleFile:
    """Reads the source in a file. Raises LoadError with all problems of the file."""
    from stepwell.core.sources.definition import parse_source, warnings  # imported only if used: it is slow

    return read_rule(file, parse_source, warnings)

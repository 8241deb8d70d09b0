"""The sources on disk: the files in `sources/` folders, beside functions or inside of their folders."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from stepwell.extras import is_installed
from stepwell.project.rule_files import FoundRules, RuleFile, find_rules, read_rule

EXTRAS = {
    "celery": ("celery", "celery"),
    "kafka": ("confluent_kafka", "kafka"),
    "pubsub": ("google.pubsub_v1", "pubsub"),
    "rabbitmq": ("kombu", "rabbitmq"),
    "redis": ("redis", "redis"),
    "sqs": ("boto3", "aws"),
}
"""By type: the module that reads it, and the extra of this package that installs the module."""


def find_sources(paths: Iterable[Path]) -> FoundRules:
    """The sources at or below each path."""
    return find_rules("sources", paths, read_source)


def read_source(file: Path) -> RuleFile:
    """Reads the source in a file. Raises LoadError with all problems of the file."""
    from stepwell.core.definition.problems import Problem
    from stepwell.core.sources.definition import parse_source, warnings  # imported only if used: it is slow

    def doubts(source: dict[str, str]) -> Iterable[Problem]:
        missing = missing_extra(source["type"])
        return [*warnings(source), *([Problem(("type",), missing)] if missing else ())]

    return read_rule(file, parse_source, doubts)


def missing_extra(kind: str) -> str | None:
    """What to install for sources of this type; None if it is installed."""
    module, extra = EXTRAS[kind]
    return None if is_installed(module) else f"sources of type {kind} need a library: pip install 'stepwell[{extra}]'"

"""Pushes the rules of webhooks, and sources, from files to a server or to an environment in AWS."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepwell.cli.ui.output import fail, warn

if TYPE_CHECKING:
    from stepwell.project.rule_files import FoundRules, RuleFile

Json = dict[str, Any]


def put_rules(
    stored: Callable[[], Mapping[str, Json]], put: Callable[[Json], object], files: Sequence[RuleFile], dry_run: bool
) -> list[Json]:
    """Puts the rules that are new or changed. Returns name and change (created, updated, unchanged) of each.

    `stored` returns the stored rules by name; it is only called if there are files."""
    known = stored() if files else {}
    done = []
    for file in files:
        before = known.get(file.name)
        change = "created" if before is None else "unchanged" if before == file.rule else "updated"
        if change != "unchanged" and not dry_run:
            put(file.rule)
        done.append({"name": file.name, "change": change})
    return done


def rules_at(
    paths: Sequence[Path], find: Callable[[Iterable[Path]], FoundRules], read: Callable[[Path], RuleFile]
) -> list[RuleFile]:
    """The rules in these files and at or below these folders. Prints warnings, and ends the command at a problem."""
    from stepwell.project.source import LoadError

    found = find([path for path in paths if path.is_dir()])
    rules, problems = found.rules, found.problems
    for file in (path for path in paths if path.is_file()):
        try:
            rules.append(read(file))
        except LoadError as error:
            problems += error.problems
    if problems:
        fail("\n".join(map(str, problems)))
    for warning in (warning for rule in rules for warning in rule.warnings):
        warn(str(warning))
    return rules

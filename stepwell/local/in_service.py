"""Definitions that could not be put in service, as reported by `/healthz` and refused by `serve --strict`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from stepwell.api.v1.health import Broken
from stepwell.project.source import PlacedProblem


class NotInService(Exception):
    """Some definitions do not load, and the server must not start without them. The message lists all of them."""


def broken_files(problems: Iterable[PlacedProblem]) -> list[Broken]:
    """One entry per file, with all problems of the file."""
    by_file: dict[Path, list[str]] = {}
    for problem in problems:
        by_file.setdefault(problem.file, []).append(str(problem))
    return [Broken("/".join(file.parts[-2:]), "\n  ".join(messages)) for file, messages in by_file.items()]


def refuse_broken(broken: Iterable[Broken]) -> None:
    """Raises NotInService if there are any."""
    if messages := [broken.message for broken in broken]:
        raise NotInService("\n  ".join(["--strict is given, and not everything is in service:", *messages]))

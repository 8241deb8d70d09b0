"""What a server was given and cannot put in service, as `/healthz` tells and `serve --strict` does not take."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from stepwell.api.v1.health import Broken
from stepwell.project.source import PlacedProblem


class NotInService(Exception):
    """A definition does not load, and that is no start; the message has all of them."""


def broken_files(problems: Iterable[PlacedProblem]) -> list[Broken]:
    """One for each file, with all that is wrong with it."""
    by_file: dict[Path, list[str]] = {}
    for problem in problems:
        by_file.setdefault(problem.file, []).append(str(problem))
    return [Broken("/".join(file.parts[-2:]), "\n  ".join(messages)) for file, messages in by_file.items()]


def refuse_broken(broken: Iterable[Broken]) -> None:
    """Raises NotInService if there is any."""
    if messages := [broken.message for broken in broken]:
        raise NotInService("\n  ".join(["not all is in service, and --strict is given:", *messages]))

"""Bugs that a careful engineer would fear, as changes of the code: each names the tests that find it.

A bug is a text of the code and what stands there instead, so it outlives moves. If its text is gone, that is an error.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mutants.copies import changed


class CannotBePlanted(Exception):
    """The text that the bug changes does not stand in exactly one place."""


@dataclass(frozen=True, slots=True)
class PlantedBug:
    """`within` is the folder or module where `old` stands, once; `found_by` are ids of tests."""

    name: str
    breaks: str
    within: str
    old: str
    new: str
    found_by: tuple[str, ...]

    def module(self, tree: Path) -> Path:
        """Returns the module that has the text. Raises CannotBePlanted."""
        place = tree / self.within
        modules = sorted(place.rglob("*.py")) if place.is_dir() else [place]
        counts = {module: module.read_text("utf-8").count(self.old) for module in modules if module.exists()}
        found = [module for module, count in counts.items() if count]
        if len(found) == 1 and counts[found[0]] == 1:
            return found[0]
        times = sum(counts.values())
        raise CannotBePlanted(
            f"{self.name}: its `old` text stands {times} times in {self.within}, not once; bring it up to date: "
            f"{self.old!r}"
        )

    @contextmanager
    def planted(self, tree: Path) -> Iterator[None]:
        """The bug is in the code of a copy for a while. Raises CannotBePlanted."""
        module = self.module(tree)
        with changed(module, module.read_text("utf-8").replace(self.old, self.new)):
            yield


def read_bug(file: Path) -> PlantedBug:
    fields = tomllib.loads(file.read_text("utf-8"))
    return PlantedBug(file.stem, **{**fields, "found_by": tuple(fields["found_by"])})

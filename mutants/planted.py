"""Planted bugs: changes of the code that a careful engineer would fear. Each lists the tests that must fail.

A bug replaces one text of the code by another, so it survives when code moves. It is an error if the text is gone.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mutants.copies import changed


class CannotBePlanted(Exception):
    """The text that the bug replaces is not in exactly one place."""


@dataclass(frozen=True, slots=True)
class PlantedBug:
    """`within`: the folder or module that contains `old` exactly once. `found_by`: ids of tests."""

    name: str
    breaks: str
    within: str
    old: str
    new: str
    found_by: tuple[str, ...]

    def module(self, tree: Path) -> Path:
        """The module that contains the text. Raises CannotBePlanted."""
        place = tree / self.within
        modules = sorted(place.rglob("*.py")) if place.is_dir() else [place]
        counts = {module: module.read_text("utf-8").count(self.old) for module in modules if module.exists()}
        found = [module for module, count in counts.items() if count]
        if len(found) == 1 and counts[found[0]] == 1:
            return found[0]
        times = sum(counts.values())
        raise CannotBePlanted(
            f"{self.name}: the text `old` occurs {times} times in {self.within}, but must occur once; "
            f"update the planted bug: {self.old!r}"
        )

    @contextmanager
    def planted(self, tree: Path) -> Iterator[None]:
        """Changes the code of a copy within the block. Raises CannotBePlanted."""
        module = self.module(tree)
        with changed(module, module.read_text("utf-8").replace(self.old, self.new)):
            yield


def read_bug(file: Path) -> PlantedBug:
    fields = tomllib.loads(file.read_text("utf-8"))
    return PlantedBug(file.stem, **{**fields, "found_by": tuple(fields["found_by"])})

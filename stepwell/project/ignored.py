"""What git, or a `.stepwellignore`, ignores in a tree of folders, without git being there.

One rule: as git has it, the deepest file that says anything about a path decides, and in it the last pattern that
matches. `.gitignore` files above the place where the search begins count up to the repository's top.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

GIT, STEPWELL = "git", ".stepwellignore"  # who ignores something
_GIT_FILE = ".gitignore"
_LARGEST = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Ignored:
    """The patterns that hold in one folder, the outermost first: who says so, and where the folder is from there."""

    specs: tuple[tuple[GitIgnoreSpec, str, str], ...] = ()

    @staticmethod
    def above(folder: Path) -> Ignored:
        """What the files above a folder say, up to its repository's top; nothing, if they ignore the folder itself:
        whoever names it means it."""
        place = folder.resolve()
        top = next((parent for parent in (place, *place.parents) if os.path.exists(parent / ".git")), None)  # noqa: PTH110
        if top is None:
            return Ignored()
        found = Ignored(_read(_exclude(top / ".git"), GIT))
        here = top
        for name in place.relative_to(top).parts:
            found = found.with_files_of(here, (_GIT_FILE, STEPWELL))
            if found.by(name, is_folder=True):
                return Ignored()
            found, here = found.inside(name), here / name
        return found

    def with_files_of(self, folder: Path, names: Iterable[str]) -> Ignored:
        """What holds in this folder, where things of these names are."""
        specs = self.specs
        if _GIT_FILE in names:
            specs += _read(folder / _GIT_FILE, GIT)
        if STEPWELL in names:
            specs += _read(folder / STEPWELL, STEPWELL)
        return Ignored(specs)

    def inside(self, name: str) -> Ignored:
        """What holds in the folder of this name."""
        return Ignored(tuple((spec, who, f"{place}{name}/") for spec, who, place in self.specs)) if self.specs else self

    def by(self, name: str, is_folder: bool) -> str | None:
        """Who ignores what is called so in this folder; None if nobody does."""
        for spec, who, place in reversed(self.specs):
            value = spec.check_file(f"{place}{name}{'/' if is_folder else ''}").include
            if value is not None:
                return who if value else None
        return None


def _read(file: Path, who: str) -> tuple[tuple[GitIgnoreSpec, str, str], ...]:
    try:
        if not file.is_file() or file.stat().st_size > _LARGEST:
            return ()
        lines = file.read_text("utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ()
    return ((_spec(lines), who, ""),)


def _spec(lines: list[str]) -> GitIgnoreSpec:
    """The patterns of these lines; git passes over those that are none."""
    from pathspec import GitIgnoreSpec  # nothing is ignored in many folders

    def is_pattern(line: str) -> bool:
        try:
            GitIgnoreSpec.from_lines([line])
        except ValueError:
            return False
        return True

    try:
        return GitIgnoreSpec.from_lines(lines)
    except ValueError:
        return GitIgnoreSpec.from_lines([line for line in lines if is_pattern(line)])


def _exclude(git: Path) -> Path:
    """`info/exclude` of a repository. In a second working tree, `.git` is a file that says where the first one is."""
    try:
        if git.is_file():
            git = git.parent / git.read_text("utf-8").removeprefix("gitdir:").strip()
            if (git / "commondir").is_file():
                git = git / (git / "commondir").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        pass
    return git / "info" / "exclude"

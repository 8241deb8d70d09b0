"""Finds out which files git, or a `.stepwellignore`, ignores in a tree of folders. git need not be installed.

As in git, the deepest file with a pattern for a path decides, and within this file the last matching pattern.
`.gitignore` files above the first searched folder count too, up to the top of the repository.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

GIT, STEPWELL = "git", ".stepwellignore"  # the two sources of patterns
_GIT_FILE = ".gitignore"
_LARGEST = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Ignored:
    """The patterns that apply in one folder, outermost first: patterns, source, and path of the folder from there."""

    specs: tuple[tuple[GitIgnoreSpec, str, str], ...] = ()

    @staticmethod
    def above(folder: Path) -> Ignored:
        """The patterns above a folder, up to the top of the repository. Empty if they ignore the folder itself, because
        the user named it explicitly."""
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
        """The patterns that apply in this folder, which has entries with these names."""
        specs = self.specs
        if _GIT_FILE in names:
            specs += _read(folder / _GIT_FILE, GIT)
        if STEPWELL in names:
            specs += _read(folder / STEPWELL, STEPWELL)
        return Ignored(specs)

    def inside(self, name: str) -> Ignored:
        """The patterns that apply in the subfolder with this name."""
        return Ignored(tuple((spec, who, f"{place}{name}/") for spec, who, place in self.specs)) if self.specs else self

    def by(self, name: str, is_folder: bool) -> str | None:
        """GIT or STEPWELL, whichever pattern ignores this entry of the folder; None if it is not ignored."""
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
    """The patterns in these lines. Invalid patterns are left out, as git does."""
    from pathspec import GitIgnoreSpec  # imported late: many folders have no such file

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
    """The path of a repository's `info/exclude`.

    In a second working tree, `.git` is a file with the first one's path.
    """
    try:
        if git.is_file():
            git = git.parent / git.read_text("utf-8").removeprefix("gitdir:").strip()
            if (git / "commondir").is_file():
                git = git / (git / "commondir").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        pass
    return git / "info" / "exclude"

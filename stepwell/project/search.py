"""Searches folders for functions.

A path that the user names is always searched, even if it is hidden or ignored. Below such a path, these are skipped:
hidden folders, folders of tools and builds, and everything that git or a `.stepwellignore` ignores. git need not be
installed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from stepwell.project.ignored import GIT, STEPWELL, Ignored
from stepwell.project.inngest import NOT_A_FUNCTION as SETTINGS_OF_INNGEST
from stepwell.project.inngest import is_settings
from stepwell.project.leftovers import is_leftover
from stepwell.project.source import PlacedProblem

NAMES = ("stepwell.json", "stepwell.yaml", "stepwell.yml", "inngest.json")
_OF_TOOLS = frozenset({"node_modules", "bower_components", "site-packages", "__pycache__", "__pypackages__"})
_OF_BUILDS = frozenset({"build", "dist", "cdk.out"})
_GENERATED = frozenset({"schemas", "sources", "webhooks"})  # searched although git ignores them: may be generated
_ENVIRONMENT = "pyvenv.cfg"  # a folder with this file is a virtual environment
_MOST = 300_000  # files and folders


@dataclass(frozen=True, slots=True)
class Folder:
    path: Path
    names: frozenset[str]  # of all its entries

    @property
    def is_function(self) -> bool:
        return not self.names.isdisjoint(NAMES) and is_function(self.path)


class Tree:
    """All folders at and below some paths, found by one walk. Links are followed if they lead to a function.

    `folders`: the folders that were searched. `linked`: the targets of the links that were followed. `problems`: paths
    that could not be searched. `passed_over`: definitions that were found and are not used, with the reason.
    """

    def __init__(self, paths: Iterable[Path], most: int = _MOST) -> None:
        self.paths = tuple(paths)
        self.folders: list[Folder] = []
        self.linked: list[Path] = []
        self.problems: list[PlacedProblem] = []
        self.passed_over: list[PlacedProblem] = []
        self._visited: set[tuple[int, int]] = set()  # device and inode of each folder
        self._left = self._most = most
        for path in self.paths:
            if is_folder(path):
                self._walk(path)
            elif not is_file(path):
                self._problem(path, _why_missing(path))
            elif is_settings(path):
                self._pass_over(path, SETTINGS_OF_INNGEST)

    @staticmethod
    def of(paths: Iterable[Path]) -> Tree:
        """The tree of these paths; `paths` itself if it is already a Tree."""
        return paths if isinstance(paths, Tree) else Tree(paths)

    def __iter__(self) -> Iterator[Path]:
        return iter(self.paths)

    def _walk(self, top: Path) -> None:
        folders = [(top, Ignored.above(top), False)]
        links: list[Path] = []
        while folders or links:
            if not folders:  # links come last, so that a folder that also has a real path is found by the real path
                link = links.pop()
                self.linked.append(link.resolve())
                folders.append((link, Ignored(), False))
            folder, above, is_code = folders.pop()  # inside a function, `.stepwellignore` excludes code, not folders
            entries = self._entries(folder)
            if self._left < 0:
                cure = "name the folders of your functions, or list in .stepwellignore the folders that contain none"
                self._problem(
                    top,
                    f"is too large to search: more than {self._most:,} files and folders, the last in {folder}; {cure}",
                )
                return
            names = frozenset(entry.name for entry in entries)
            if _ENVIRONMENT in names and folder != top:
                continue
            is_code = is_code or not names.isdisjoint(NAMES)
            ignored = above.with_files_of(folder, names - {STEPWELL} if is_code else names)
            self._look_at_names(folder, names)
            own = names if folder == top else self._without_ignored(folder, names, ignored)
            self.folders.append(Folder(folder, self._without_settings(folder, own)))
            for entry in entries:
                if _is_linked_function(entry):
                    if not self._is_passed_over(entry, ignored):
                        links.append(Path(entry.path))
                elif entry.is_dir(follow_symlinks=False) and not self._is_passed_over(entry, ignored):
                    folders.append((Path(entry.path), ignored.inside(entry.name), is_code))

    def _without_ignored(self, folder: Path, names: frozenset[str], ignored: Ignored) -> frozenset[str]:
        out = {name: who for name in names.intersection(NAMES) if (who := ignored.by(name, is_folder=False))}
        for name, who in out.items():
            self._pass_over(folder / name, f"{who} ignores it; name the folder explicitly to use it")
        return names.difference(out)

    def _without_settings(self, folder: Path, names: frozenset[str]) -> frozenset[str]:
        files = [folder / name for name in names.intersection(NAMES) if is_settings(folder / name)]
        for file in files:
            self._pass_over(file, SETTINGS_OF_INNGEST)
        return names.difference(file.name for file in files)

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        """The entries of a folder; empty if the folder was visited before."""
        try:
            found = folder.stat()
            if (found.st_dev, found.st_ino) in self._visited:
                return []
            self._visited.add((found.st_dev, found.st_ino))
            with os.scandir(folder) as scan:
                entries = list(islice(scan, self._left + 1))
        except OSError as error:
            self._problem(
                folder, f"cannot be read ({error.strerror}), so functions in it are not found; make it readable"
            )
            return []
        self._left -= len(entries)
        return entries

    def _look_at_names(self, folder: Path, names: frozenset[str]) -> None:
        for name in names:
            if name in NAMES and os.path.islink(folder / name) and not is_file(folder / name):  # noqa: PTH114
                self._problem(folder / name, "is a link that does not lead to a file; correct or remove it")
            elif name not in NAMES and name.lower() in NAMES and not is_file(folder / name.lower()):
                self._pass_over(folder / name, f"names of definitions are lower case; rename it to {name.lower()}")

    def _is_passed_over(self, entry: os.DirEntry[str], ignored: Ignored) -> bool:
        if entry.name.startswith(".") or entry.name in _OF_TOOLS or is_leftover(entry.name):
            return True
        if entry.name in _OF_BUILDS or entry.name.endswith((".egg-info", ".dist-info")):
            why = f"folders named {entry.name} contain build output"
        elif who := ignored.by(entry.name, is_folder=not entry.is_symlink()):
            if who == GIT and entry.name in _GENERATED:
                return False
            why = f"{who} ignores it"
        else:
            return False
        for file in filter(is_file, (Path(entry.path, name) for name in NAMES)):
            self._pass_over(file, f"{why}; name the folder explicitly to use it")
        return True

    def _pass_over(self, file: Path, why: str) -> None:
        self.passed_over.append(PlacedProblem(file, 1, 1, (), f"is skipped: {why}"))

    def _problem(self, path: Path, message: str) -> None:
        self.problems.append(PlacedProblem(path, 1, 1, (), message))


def is_file(path: Path) -> bool:
    """Like `Path.is_file`, but never raises PermissionError, as that does before Python 3.14."""
    return os.path.isfile(path)  # noqa: PTH113


def is_function(folder: Path) -> bool:
    """Whether a folder contains a definition."""
    return any(is_file(folder / name) and not is_settings(folder / name) for name in NAMES)


def is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112


def _is_linked_function(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and is_function(Path(entry.path))


def _why_missing(path: Path) -> str:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "does not exist; name a definition file or a folder"
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    return f"is neither a file nor a folder, but {stat.filemode(mode)[0]!r}; name a definition file or a folder"

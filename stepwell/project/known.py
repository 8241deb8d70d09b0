"""Functions that were loaded before. They are loaded again only if one of their files was changed.

A file's `ctime` reveals every write, except one in the same tick of the file system's clock as the read. So a file
counts as known only if its last write is older than one tick when it is read.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from stepwell.project import inngest
from stepwell.project.load import LoadedFunction, LoadError, load, load_all

_TICK_NS = 50_000_000
_NO_CODE = frozenset({".git", "__pycache__", ".stepwell"})

_Stamp = dict[str, tuple[int, int] | None]  # by path: the inode and `ctime`; None if the path does not exist


class KnownFunctions:
    def __init__(self, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._now_ns = now_ns
        self._known: dict[Path, tuple[_Stamp, LoadedFunction]] = {}  # by definition file
        self._in_service: dict[str, LoadedFunction] = {}  # by function id

    def load_all(self, paths: Iterable[Path]) -> tuple[list[LoadedFunction], list[LoadError]]:
        """Like `load.load_all`, but returns the same object as before for a function whose files did not change."""
        before, self._known = self._known, {}
        return load_all(paths, lambda file: self._load(file, before.get(file)))

    def _load(self, file: Path, known: tuple[_Stamp, LoadedFunction] | None) -> LoadedFunction:
        if known is not None and _stamp(known[1]) == known[0]:
            self._known[file] = known
            return known[1]
        began = self._now_ns()
        function = load(file)
        stamp = {} if _reads_more(function) else _stamp(function)
        if stamp and all(pair is None or pair[1] < began - _TICK_NS for pair in stamp.values()):
            self._known[file] = stamp, function
        return function

    def is_in_service(self, function: LoadedFunction) -> bool:
        """Whether this function was put into service, and has not changed since."""
        return self._in_service.get(function.definition.id) is function

    def put_in_service(self, function: LoadedFunction) -> None:
        self._in_service[function.definition.id] = function


def _reads_more(function: LoadedFunction) -> bool:
    """Whether loading the function reads files that `_read_by` does not list."""
    return bool(function.schemas) or function.file.name == inngest.NAME


def _stamp(function: LoadedFunction) -> _Stamp:
    """The stamp of everything that loading the function reads."""
    return {path: _stat(path) for path in _read_by(function)}


def _read_by(function: LoadedFunction) -> Iterator[str]:
    folder = function.file.parent
    yield from (str(function.file), str(folder), f"{folder}/.stepwellignore")
    for step in function.definition.steps.values():
        if step.path:
            path = folder / step.path.removeprefix("file://")  # the path can contain links
            yield from (str(path) for path in (path, *path.parents) if folder in path.parents)
    for code in {step.folder: step for step in function.steps.values()}.values():
        yield str(code.folder)
        if code.file is not None:
            yield from (f"{code.folder}/{code.file}", f"{code.folder}/.env")
            continue
        for parent, folders, files in os.walk(code.folder):
            folders[:] = [name for name in folders if name not in _NO_CODE]
            yield from (f"{parent}/{name}" for name in (*folders, *files))


def _stat(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns

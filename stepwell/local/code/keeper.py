"""Keeps the code of steps equal to its hash: changed code is detected before it runs, then restored or refused.

To hash the code before every attempt would be slow. So the hash is remembered together with inode and `ctime` of all
files and folders; every write changes the `ctime`.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from stepwell.local.system.files import open_file
from stepwell.project.archive import BadArchive, unpack
from stepwell.project.code import CodeError, StepCode
from stepwell.project.code_copies import is_copy, materialise
from stepwell.project.load import LoadError, load

log = logging.getLogger("stepwell.code")

_QUICK = 500  # files and folders that are checked on the event loop: half a millisecond
_TICK_NS = 50_000_000  # file times are coarse: a second write in the same tick may leave no trace
_BYTECODE = "__pycache__"

Fingerprint = dict[str, tuple[int, int]]  # by path: the inode, and the time of the last change (ctime, in ns)


class CodeKeeper:
    """Manages `folder`: the code of each step, in a folder named by hash, and the archives that were pushed.

    Call all methods but `is_unchanged` in a thread: they read or write many files."""

    def __init__(self, folder: Path, definitions: Mapping[str, Path] | None = None) -> None:
        """`definitions` are the files of functions that were found on disk, by function id."""
        self.folder = folder
        self._definitions = dict(definitions or {})
        self._fingerprints: dict[str, Fingerprint] = {}
        self._lock = threading.Lock()

    def store(self, code: StepCode) -> None:
        """Stores a step's code, or restores it if the stored copy was changed. Raises CodeError, OSError."""
        with self._lock:
            known = self._fingerprints.get(code.hash)
            if known is None or not _matches(known):
                materialise(code, self.folder)

    def remember_definition(self, function_id: str, file: Path) -> None:
        """Remembers where a function was found on disk, so that code can be restored from there."""
        self._definitions[function_id] = file

    def store_archive(self, function_id: str, version: int, archive: IO[bytes]) -> None:
        """Stores a pushed archive, so that code can be restored from it. Raises OSError."""
        archive.seek(0)
        unfinished = self.folder / ".pushed"
        with os.fdopen(open_file(unfinished, os.O_WRONLY | os.O_TRUNC), "wb") as file:
            shutil.copyfileobj(archive, file)
        unfinished.rename(self.folder / pushed_name(function_id, version))

    def is_unchanged(self, code_hash: str) -> bool:
        """Whether the code is known to be unchanged. False if a check would take long."""
        known = self._fingerprints.get(code_hash)
        return known is not None and len(known) <= _QUICK and _matches(known)

    def check(self, code_hash: str, function_id: str, version: int) -> str | None:
        """Verifies a version's code, and restores it if needed. Returns the problem with a fix; None if all is well."""
        with self._lock:
            known = self._fingerprints.get(code_hash, {})
            if (known and _matches(known)) or self._verify(code_hash):
                return None
            changed = _changed_files(known)
            if self._restore(code_hash, function_id, version):
                log.warning("the code in %s was changed%s, and has been restored", self.folder / code_hash, changed)
                return None
        return (
            f"the code in {self.folder / code_hash} differs from the code of version {version}{changed}, and cannot be"
            " restored from where it came from. Restore a backup, or make a new version; then rerun the failed runs."
            " Steps must not write into their code folder; they may write to TMPDIR"
        )

    def _verify(self, code_hash: str) -> bool:
        """Verifies the hash. Removes `__pycache__` folders first: they could contain other code."""
        folder = self.folder / code_hash
        self._fingerprints.pop(code_hash, None)
        try:
            for leftover in folder.rglob(_BYTECODE):
                shutil.rmtree(leftover, ignore_errors=True)
            found = _fingerprint(folder)
            if not is_copy(folder, code_hash):
                return False
            now = time.time_ns()
            if _matches(found) and all(abs(now - changed) > _TICK_NS for _, changed in found.values()):
                self._fingerprints[code_hash] = found
            return True
        except OSError:
            return False

    def _restore(self, code_hash: str, function_id: str, version: int) -> bool:
        """Copies the code from the pushed archive or the function's folder, if that has the same hash still."""
        pushed = self.folder / pushed_name(function_id, version)
        with tempfile.TemporaryDirectory() as unpacked:
            try:
                if pushed.is_file():
                    with pushed.open("rb") as archive:
                        unpack(archive, Path(unpacked))
                source = Path(unpacked) if pushed.is_file() else self._definitions.get(function_id)
                for code in load(source).steps.values() if source else ():
                    if code.hash == code_hash:
                        materialise(code, self.folder)
            except (BadArchive, LoadError, CodeError, OSError) as reason:
                log.warning("the code in %s cannot be restored: %s", self.folder / code_hash, reason)
        return self._verify(code_hash)


def pushed_name(function_id: str, version: int) -> str:
    """The file name of the archive with which a version was pushed."""
    return f"{function_id}-{version}.zip"


def _fingerprint(folder: Path) -> Fingerprint:
    """The inode and ctime of every file and folder of the code. Raises OSError."""
    found = {str(folder): _stat(str(folder))}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = f"{parent}/{name}"
            found[path] = _stat(path)
    return found


def _stat(path: str) -> tuple[int, int]:
    stat = os.lstat(path)
    return stat.st_ino, stat.st_ctime_ns


def _matches(known: Fingerprint) -> bool:
    try:
        for path, (inode, changed) in known.items():  # written out, since it runs before every attempt
            stat = os.lstat(path)
            if stat.st_ctime_ns != changed or stat.st_ino != inode:
                return False
    except OSError:
        return False
    return True


def _changed_files(known: Fingerprint) -> str:
    """The names of changed files, for a message."""
    names = []
    for path, pair in known.items():
        try:
            is_same = _stat(path) == pair
        except OSError:
            is_same = False
        if not is_same and not os.path.isdir(path):  # noqa: PTH112 (the changed file in the folder is named)
            names.append(os.path.basename(path))  # noqa: PTH119
    return f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else ""

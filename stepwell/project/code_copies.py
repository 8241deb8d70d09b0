"""Read-only copies of the steps' code. Attempts run in these copies.

A copy is checked against the hash of the code before an attempt can use it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
from pathlib import Path

from stepwell.project.code import (
    LARGEST,
    CodeError,
    StepCode,
    chunks,
    hash_of,
    read_file,
    shown_path,
    virtual_environments,
    walk,
)

CHANGED = ".changed-"  # prefix of the names of copies that were changed and then replaced


def materialise(code: StepCode, into: Path) -> Path:
    """Makes the read-only copy `<into>/<hash>` of the code, unless a correct one exists, and returns the path.

    The copy gets this name only when it is complete. A file lock admits one writer per folder, so an unfinished copy
    that a writer finds was left by a crash. A copy that was changed is renamed, because attempts may still run in it.
    Raises CodeError, and OSError (disk full).
    """
    target = into / code.hash
    if is_copy(target, code.hash):
        return target
    into.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(into / ".lock", os.O_WRONLY | os.O_CREAT, 0o600), "wb") as lock:
        os.fchmod(lock.fileno(), 0o600)  # other users who can open this file could hold the lock forever
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_copy(target, code.hash):
            unfinished, changed = into / ".unfinished", into / f"{CHANGED}{code.hash}"
            remove(unfinished)
            remove(changed)
            try:
                _copy(code, unfinished)
                if target.is_dir():
                    target.rename(changed)
                unfinished.rename(target)
            except BaseException:
                remove(unfinished)
                raise
    return target


def is_copy(folder: Path, code_hash: str) -> bool:
    """Whether a copy still has this hash. `__pycache__` folders are not counted, since Python writes them."""
    if not folder.is_dir():
        return False
    folder = folder.resolve()
    try:
        names = sorted(walk(folder, _PythonCaches()), key=os.fsencode)
        environments = virtual_environments(names)
        return hash_of(read_file(folder, name, LARGEST, environments)[0] for name in names) == code_hash
    except (OSError, CodeError):
        return False


class _PythonCaches:
    """Excludes the `__pycache__` folders that Python writes into a copy."""

    def excludes(self, path: str, is_folder: bool) -> bool:
        return is_folder and path.rpartition("/")[2] == "__pycache__"


def remove(folder: Path) -> None:
    """Deletes a read-only copy, if it exists."""
    if not folder.is_dir():
        return
    for parent, _, _ in os.walk(folder):
        Path(parent).chmod(0o700)
    shutil.rmtree(folder)


def _copy(code: StepCode, to: Path) -> None:
    to.mkdir()
    for file in code.files:
        copy = to / file.path
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            digest = _copy_one(code.folder / file.path, copy, file.kind)
        except (FileNotFoundError, NotADirectoryError):
            digest = None
        if digest != file.digest:
            raise CodeError(
                f"{shown_path(code.folder / file.path)} changed while it was copied; load the function again"
            )
    for parent, _, _ in os.walk(to, topdown=False):
        Path(parent).chmod(0o555)


def _copy_one(source: Path, copy: Path, kind: str) -> bytes | None:
    """Copies a file or link. Returns the digest of the copied bytes; None if the file has changed into another kind."""
    mode = source.lstat().st_mode
    if stat.S_ISLNK(mode) and kind == "l":
        text = str(source.readlink())
        copy.symlink_to(text)
        return hashlib.sha256(os.fsencode(text)).digest()
    if not stat.S_ISREG(mode) or kind != ("x" if mode & stat.S_IXUSR else "f"):
        return None
    digest = hashlib.sha256()
    with copy.open("xb") as file:
        for chunk in chunks(source):
            digest.update(chunk)
            file.write(chunk)
        os.fchmod(file.fileno(), 0o555 if kind == "x" else 0o444)
    return digest.digest()

"""The read-only copies of steps' code that attempts run in.

A copy is checked against its hash before anybody sees it.
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

CHANGED = ".changed-"  # begins the names of copies that were put aside


def materialise(code: StepCode, into: Path) -> Path:
    """The read-only copy of this code, `<into>/<hash>`, made unless it is there and right. Raises CodeError, OSError
    (disk full).

    The copy gets its name only when it is whole. Copiers into one folder take turns, so what is half made when one
    begins was left by a crash. A copy that was changed is put aside, since attempts may still run in it.
    """
    target = into / code.hash
    if is_copy(target, code.hash):
        return target
    into.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(into / ".lock", os.O_WRONLY | os.O_CREAT, 0o600), "wb") as lock:
        os.fchmod(lock.fileno(), 0o600)  # who can open it can keep others from it
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
    """Whether a copy that was made here is still what its hash says. Every file counts but what Python leaves."""
    if not folder.is_dir():
        return False
    folder = folder.resolve()
    try:
        names = sorted(walk(folder, _Leavings()), key=os.fsencode)
        environments = virtual_environments(names)
        return hash_of(read_file(folder, name, LARGEST, environments)[0] for name in names) == code_hash
    except (OSError, CodeError):
        return False


class _Leavings:
    """What is no part of a copy."""

    def holds(self, path: str, is_folder: bool) -> bool:
        return is_folder and path.rpartition("/")[2] == "__pycache__"


def remove(folder: Path) -> None:
    """Delete a read-only copy, if it is there."""
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
    """Copy a file or link; the digest of what was copied, None if it is of another kind by now."""
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

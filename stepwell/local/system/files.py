"""Who may read what a server keeps: its own user, and nobody else.

The database holds users' data, values of `.env` files and the secret that signs links; the code of steps lies beside
it. One rule: a file gets its mode when it is made, so there is no moment at which somebody else could open it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_FILE = 0o600
_FOLDER = 0o700
_OTHERS = 0o077
_BESIDE = ("-wal", "-shm", "-journal", ".lock")
_OWN_FOLDER = ".stepwell"  # which `dev` makes for its database


def make_file(path: Path) -> None:
    """An empty private file, unless there is one. SQLite gives `-wal` and `-shm` the mode of their database, and says
    what is wrong with a place where none can be made."""
    with contextlib.suppress(OSError):
        os.close(open_file(path.resolve(), os.O_EXCL | os.O_WRONLY))


def open_file(path: Path, flags: int) -> int:
    """A descriptor of a file, which is private if this call makes it. What root makes in a folder of somebody else is
    theirs: their server opens it too."""
    descriptor = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, _FILE)
    give_to_owner(path, path.parent)
    return descriptor


def give_to_owner(path: Path, folder: Path) -> None:
    """What root has made for a folder of somebody else becomes theirs, with all that is in it."""
    value = folder.stat()
    if os.geteuid() != 0 or value.st_uid == 0 or value.st_mode & stat.S_ISVTX or path.lstat().st_uid != 0:
        return
    os.chown(path, value.st_uid, value.st_gid, follow_symlinks=False)
    for parent, folders, files in os.walk(path):
        for name in (*folders, *files):
            os.chown(f"{parent}/{name}", value.st_uid, value.st_gid, follow_symlinks=False)


def make_folder(path: Path) -> None:
    """A private folder, unless there is one. Folders above it that are missing get the usual mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=_FOLDER, exist_ok=True)


def make_code_folder(path: Path) -> None:
    """The folder of steps' code, which steps must be able to enter: they run as the server's user, unless it is opened
    to another (`open_code`)."""
    make_folder(path)


def open_code(database: Path, code: Path, gid: int) -> None:
    """Let a group enter the folder of steps' code, and find what is in it by its name, but list nothing. Raises
    OSError."""
    own = database.absolute().parent
    for folder in (code, *([own] if own.name == _OWN_FOLDER else [])):
        os.chown(folder, -1, gid)
        folder.chmod(_FOLDER | stat.S_IXGRP)


def close_to_others(database: Path, code: Path, gid: int | None = None) -> Iterator[str]:
    """Take from group and others what they may do with files that were made before they were private. Answers a
    warning for each. `gid`: the group whose members may enter the folders."""
    real = database.resolve()
    paths = [real, *(real.with_name(real.name + suffix) for suffix in _BESIDE), code]
    if database.absolute().parent.name == _OWN_FOLDER:
        paths.append(database.absolute().parent)
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            value = path.stat()
            before = stat.S_IMODE(value.st_mode)
            may_be_entered = stat.S_ISDIR(value.st_mode) and value.st_gid == gid
            if before & _OTHERS & ~(stat.S_IXGRP if may_be_entered else 0):
                yield _close(path, before)


def _close(path: Path, before: int) -> str:
    try:
        path.chmod(before & ~_OTHERS)
        reason = "this file system keeps no modes"
    except OSError as error:
        reason = str(error.strerror)
    after = stat.S_IMODE(path.stat().st_mode)
    if after & _OTHERS:
        cure = "move it to a private folder"
        return f"others can read {path} (mode {after:o}), and that cannot be changed ({reason}): {cure}"
    return f"others could read {path} (mode {before:o}): it is private now (mode {after:o})"

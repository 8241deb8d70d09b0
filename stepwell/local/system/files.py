"""Modes and owners of the server's files: only the server's own user may read them.

The database contains users' data, values of `.env` files and the secret that signs links; the code of steps is stored
beside it. A file gets its mode when it is created, so there is no moment at which another user could open it.
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
_OWN_FOLDER = ".stepwell"  # the folder that `dev` makes for the database


def make_file(path: Path) -> None:
    """Creates an empty private file, unless it exists. SQLite gives `-wal` and `-shm` the mode of the database. Errors
    are left to SQLite, which reports them when it opens the file."""
    with contextlib.suppress(OSError):
        os.close(open_file(path.resolve(), os.O_EXCL | os.O_WRONLY))


def open_file(path: Path, flags: int) -> int:
    """Opens or creates a file; returns the descriptor. A new file is private. If root creates it in another user's
    folder, the file belongs to that user, whose server opens it too."""
    descriptor = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, _FILE)
    give_to_owner(path, path.parent)
    return descriptor


def give_to_owner(path: Path, folder: Path) -> None:
    """If root made `path` in another user's folder, give that user `path` and all that is in it."""
    value = folder.stat()
    if os.geteuid() != 0 or value.st_uid == 0 or value.st_mode & stat.S_ISVTX or path.lstat().st_uid != 0:
        return
    os.chown(path, value.st_uid, value.st_gid, follow_symlinks=False)
    for parent, folders, files in os.walk(path):
        for name in (*folders, *files):
            os.chown(f"{parent}/{name}", value.st_uid, value.st_gid, follow_symlinks=False)


def make_folder(path: Path) -> None:
    """Creates a private folder, unless it exists. Missing folders above it get the usual mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=_FOLDER, exist_ok=True)


def make_code_folder(path: Path) -> None:
    """Creates the folder of steps' code. Steps must be able to enter it: they run as the server's user, unless
    `open_code` opens the folder to another one."""
    make_folder(path)


def open_code(database: Path, code: Path, gid: int) -> None:
    """Lets a group enter the folder of steps' code and open files by name, but not list the folder. Raises OSError."""
    own = database.absolute().parent
    for folder in (code, *([own] if own.name == _OWN_FOLDER else [])):
        os.chown(folder, -1, gid)
        folder.chmod(_FOLDER | stat.S_IXGRP)


def make_private(database: Path, code: Path, gid: int | None = None) -> Iterator[str]:
    """Removes the permissions of group and others from files that are not private. Yields a warning for each.

    Members of the group `gid` may enter the folders."""
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
        return f"others can read {path} (mode {after:o}), and the mode cannot be changed ({reason}): {cure}"
    return f"others could read {path} (mode {before:o}): it is private now (mode {after:o})"

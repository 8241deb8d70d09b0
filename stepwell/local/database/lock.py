"""One server per database: a lock on a file beside the database, released when the process ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from stepwell.local.system.files import open_file


class InUse(Exception):
    """Another server uses the database."""


@contextmanager
def exclusive(database: Path) -> Iterator[None]:
    """Locks the database for this process. Raises InUse, which names the process that holds it."""
    database = database.resolve()  # a link to it is the same database
    with os.fdopen(open_file(_path(database), os.O_RDWR), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise _refusal(database, file) from None
        file.truncate(0)
        file.write(f"process {os.getpid()}")
        file.flush()
        yield


def refuse_if_in_use(database: Path) -> None:
    """Raises InUse if another process holds the database. Does not lock it."""
    database = database.resolve()
    with contextlib.suppress(FileNotFoundError), _path(database).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            raise _refusal(database, file) from None


def _path(database: Path) -> Path:
    return database.with_name(database.name + ".lock")


def _refusal(database: Path, file: IO[str]) -> InUse:
    file.seek(0)
    holder = file.read().strip() or "another process"
    return InUse(f"{database} is in use by {holder}; a database has one server: stop that one, or name another --db")

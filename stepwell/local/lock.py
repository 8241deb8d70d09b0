"""One server a database: a lock on a file beside it, which ends with the process that holds it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stepwell.local.files import open_file


class InUse(Exception):
    """Another server uses the database."""


@contextmanager
def exclusive(database: Path) -> Iterator[None]:
    """Hold the database for this process. Raises InUse, which names the process that holds it."""
    database = database.resolve()  # a link to it is the same database
    path = database.with_name(database.name + ".lock")
    with os.fdopen(open_file(path, os.O_RDWR), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise InUse(
                f"{database} is in use by {holder}; a database has one server: stop that one, or name another --db"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()}")
        file.flush()
        yield

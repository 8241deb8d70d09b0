"""Which code the versions in a database need, and how it is kept from being cleaned away while somebody copies it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson


@contextmanager
def code_in_use(code: Path) -> Iterator[None]:
    """Meanwhile nothing is removed from this folder."""
    if not code.is_dir():
        yield
        return
    with _opened(code) as folder:
        fcntl.flock(folder, fcntl.LOCK_SH)
        yield


@contextmanager
def code_free(code: Path) -> Iterator[bool]:
    """Whether something may be removed from this folder, which is there, now."""
    with _opened(code) as folder:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def stored_code(connection: sqlite3.Connection) -> dict[str, str]:
    """The code of all versions: by its hash, whose it is."""
    return _named(connection.execute("SELECT function, version, code FROM versions ORDER BY function, version"))


def needed_code(connection: sqlite3.Connection) -> dict[str, str]:
    """The code that new runs and those which are not over use: by its hash, whose it is."""
    return _named(
        connection.execute(
            "SELECT function, version, code FROM versions WHERE EXISTS (SELECT 1 FROM functions WHERE id = function"
            " AND version IN (live, json_extract(routing, '$.canary.version')))"
            " OR (function, version) IN (SELECT function, version FROM runs WHERE status = 0)"
            " ORDER BY function, version"
        )
    )


def _named(rows: sqlite3.Cursor) -> dict[str, str]:
    names: dict[str, str] = {}
    for function, version, code in rows:
        for step, code_hash in orjson.loads(code).items():
            names[code_hash] = f"{function} version {version}, step {step}"
    return names

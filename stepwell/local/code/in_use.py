"""The code that a database's versions need, and locks that keep code from being removed while it is copied."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson


@contextmanager
def code_in_use(code: Path) -> Iterator[None]:
    """Locks the folder of code: nothing is removed from it meanwhile."""
    if not code.is_dir():
        yield
        return
    with _opened(code) as folder:
        fcntl.flock(folder, fcntl.LOCK_SH)
        yield


@contextmanager
def code_free(code: Path) -> Iterator[bool]:
    """Locks the folder of code for removal, if no one uses it. Yields whether something may be removed now."""
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


@dataclass(frozen=True, slots=True)
class NeededVersion:
    """A version that new or open runs use. `code` has hashes by step. `file` is the definition found on disk, or "" if
    the function was pushed."""

    function_id: str
    version: int
    code: Mapping[str, str]
    file: str
    is_live: bool
    has_runs: bool


def needed_versions(connection: sqlite3.Connection) -> list[NeededVersion]:
    rows = connection.execute(
        "SELECT * FROM (SELECT function, version, code, coalesce(file, ''),"
        " coalesce(version IN (live, json_extract(routing, '$.canary.version')), 0) AS is_live,"
        " EXISTS (SELECT 1 FROM runs WHERE status = 0 AND runs.function = versions.function"
        " AND runs.version = versions.version) AS has_runs"
        " FROM versions LEFT JOIN functions ON functions.id = function) WHERE is_live OR has_runs"
        " ORDER BY function, version"
    )
    return [NeededVersion(f, v, orjson.loads(code), file, bool(a), bool(b)) for f, v, code, file, a, b in rows]


def needed_code(connection: sqlite3.Connection) -> dict[str, str]:
    """The code that new and open runs use: by hash, the function, version and step it belongs to."""
    return {
        code_hash: f"{version.function_id} version {version.version}, step {step}"
        for version in needed_versions(connection)
        for step, code_hash in version.code.items()
    }


def stored_code(connection: sqlite3.Connection) -> dict[str, str]:
    """The code of all versions: by hash, the function, version and step it belongs to."""
    rows = connection.execute("SELECT function, version, code FROM versions ORDER BY function, version")
    return {
        code_hash: f"{function} version {version}, step {step}"
        for function, version, code in rows
        for step, code_hash in orjson.loads(code).items()
    }

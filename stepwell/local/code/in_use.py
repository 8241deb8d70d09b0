"""Which code the versions in a database need, and how it is kept from being cleaned away while somebody copies it."""

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


@dataclass(frozen=True, slots=True)
class NeededVersion:
    """A version that new runs or open ones use. `code`: hashes by step; `file`: where the function was found on disk;
    "" if it was pushed."""

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
    """The code that new runs and those which are not over use: by its hash, whose it is."""
    return {
        code_hash: f"{version.function_id} version {version.version}, step {step}"
        for version in needed_versions(connection)
        for step, code_hash in version.code.items()
    }


def stored_code(connection: sqlite3.Connection) -> dict[str, str]:
    """The code of all versions: by its hash, whose it is."""
    rows = connection.execute("SELECT function, version, code FROM versions ORDER BY function, version")
    return {
        code_hash: f"{function} version {version}, step {step}"
        for function, version, code in rows
        for step, code_hash in orjson.loads(code).items()
    }

"""Backups: one file with the database, long logs and the code of all versions, made while a server runs and writes.

The file is a tar archive: `manifest.json`, `database`, then `logs/<name>`, `logs.json` and `code/<hash>/...`. The code
is locked against removal before the database is read, so a backup contains the code of every version in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import orjson

from stepwell import __version__
from stepwell.local.code.in_use import code_in_use, needed_code, stored_code
from stepwell.local.database.log_files import log_folder
from stepwell.local.database.schema import connect
from stepwell.project.code import CodeFile, hash_of

FORMAT = 2
MANIFEST, DATABASE, LOGS, CODE = "manifest.json", "database", "logs", "code"
LOG_HASHES = "logs.json"  # after the logs, because a server may append to or remove them until they are read
_PAGES = 2_000  # copied at a time
_BYTECODE = "__pycache__"

Progress = Callable[[str, int, int], None]  # what is copied (`database` or `code`), the amount so far, and the total


class BackupError(Exception):
    """The backup cannot be made. The message contains the reason and what to do."""


@dataclass(frozen=True, slots=True)
class Backup:
    """What was written. `missing` names code that is gone, of versions that are not needed any more."""

    database_bytes: int
    code: int
    missing: tuple[str, ...]


def back_up(database: Path, code: Path, to: IO[bytes], scratch: Path, progress: Progress) -> Backup:
    """Writes a backup. `scratch` is a folder for a temporary copy of the database.

    Raises BackupError, BadDatabase, OSError (disk full)."""
    with code_in_use(code), tempfile.TemporaryDirectory(prefix=".stepwell-backup-", dir=scratch) as folder:
        copy = Path(folder) / DATABASE
        _snapshot(database, copy, progress)
        needed, wanted = _referenced_code(copy)
        found = {name for name in wanted if (code / name).is_dir()}
        if missing := [name for text, name in needed.items() if text not in found]:
            raise BackupError(
                f"the code of {'; '.join(missing)} is not in {code}, so the backup would be useless: start the server"
                " once with the folder that the code came from, or push new versions"
            )
        size = copy.stat().st_size
        manifest = {
            "format": FORMAT,
            "stepwell": __version__,
            "created_at": int(time.time() * 1000),
            "database": {"bytes": size, "sha256": _digest(copy)},
            "code": sorted(found),
        }
        with tarfile.open(fileobj=to, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            _add(archive, MANIFEST, io.BytesIO(text := orjson.dumps(manifest)), len(text))
            with copy.open("rb") as file:
                _add(archive, DATABASE, file, size)
            _add_logs(archive, copy, log_folder(database))
            for number, code_hash in enumerate(sorted(found), 1):
                _add_code(archive, code / code_hash, code_hash)
                progress(CODE, number, len(found))
    return Backup(size, len(found), tuple(name for text, name in wanted.items() if text not in found))


def _snapshot(database: Path, copy: Path, progress: Progress) -> None:
    """Copies a database consistently while others write to it. Raises BackupError."""
    with contextlib.closing(connect(database, read_only=True)) as source:
        source.execute("BEGIN")  # one snapshot for all pieces of the copy
        source.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        (page_bytes,) = source.execute("PRAGMA page_size").fetchone()
        os.close(os.open(copy, os.O_CREAT | os.O_EXCL, 0o600))
        with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as target:
            target.execute("PRAGMA synchronous = OFF")  # an incomplete copy is thrown away

            def copied(status: int, remaining: int, total: int) -> None:
                progress(DATABASE, (total - remaining) * page_bytes, total * page_bytes)

            source.backup(target, pages=_PAGES, progress=copied)
            (verdict,) = target.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise BackupError(f"{database} is damaged ({verdict}); restore the last backup made before the damage")


def _referenced_code(copy: Path) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """The code that live versions and open runs need, and the code of all versions: step names by code hash."""
    with contextlib.closing(connect(copy, read_only=True)) as connection:
        return needed_code(connection), stored_code(connection)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


# --- the archive -----------------------------------------------------------------------------------------------------


def _add(archive: tarfile.TarFile, name: str, content: IO[bytes] | _Hashing, size: int, mode: int = 0o600) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, mode
    archive.addfile(entry, cast(IO[bytes], content))


def _add_logs(archive: tarfile.TarFile, copy: Path, folder: Path) -> None:
    """Adds the log files that the copied database refers to, with their current contents, and their hashes.

    A missing file belongs to a run that was removed in the meantime."""
    hashes: dict[str, str] = {}
    for name in _logs_of(copy):
        with contextlib.suppress(FileNotFoundError), (folder / name).open("rb") as content:
            size, hashing = os.fstat(content.fileno()).st_size, _Hashing(content)
            _add(archive, f"{LOGS}/{name}", hashing, size)
            hashes[name] = hashing.digest().hex()
    _add(archive, LOG_HASHES, io.BytesIO(text := orjson.dumps(hashes)), len(text))


def _logs_of(copy: Path) -> list[str]:
    with contextlib.closing(connect(copy, read_only=True)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'log_files'").fetchone():
            return []  # a database of an older version, not opened by this one yet
        return [name for (name,) in connection.execute("SELECT name FROM log_files ORDER BY run, step, attempt")]


def _add_code(archive: tarfile.TarFile, folder: Path, code_hash: str) -> None:
    """Adds one step's code, and verifies the hash. Raises BackupError."""
    files = []
    for name in sorted(_names(folder), key=os.fsencode):
        path, entry_name = folder / name, f"{CODE}/{code_hash}/{name}"
        if path.is_symlink():
            entry = tarfile.TarInfo(entry_name)
            entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, str(path.readlink()), 0o777
            archive.addfile(entry)
            files.append(CodeFile(name, "l", hashlib.sha256(os.fsencode(entry.linkname)).digest()))
            continue
        is_program = bool(path.stat().st_mode & 0o100)
        with path.open("rb") as content:
            hashing = _Hashing(content)
            _add(archive, entry_name, io.BufferedReader(hashing), path.stat().st_size, 0o555 if is_program else 0o444)
        files.append(CodeFile(name, "x" if is_program else "f", hashing.digest()))
    if hash_of(files) != code_hash:
        raise BackupError(
            f"the code in {folder} was changed, so the backup would be useless: start the server once with the folder"
            " that the code came from, which restores it, or push the function again"
        )


def _names(folder: Path) -> Iterator[str]:
    """The paths of all files and links, relative to the folder."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != _BYTECODE]
        links = [name for name in folders if os.path.islink(f"{parent}/{name}")]  # noqa: PTH114
        for name in (*files, *links):
            yield (Path(parent) / name).relative_to(folder).as_posix()


class _Hashing(io.RawIOBase):
    """Reads a file and hashes what it reads."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._hash = file, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._file.read(len(buffer))
        self._hash.update(piece)
        buffer[: len(piece)] = piece
        return len(piece)

    def digest(self) -> bytes:
        return self._hash.digest()

"""Restores a backup: the database, long logs and the code of all versions.

The whole backup is unpacked and verified before anything existing is touched. Then code (named by content hash) and
logs (with unique names) are moved into place, and the database is replaced in one step. Logs of the old database are
removed when a server starts.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import sqlite3
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson

from stepwell.local.backup.backup import CODE, DATABASE, FORMAT, LOG_HASHES, LOGS, MANIFEST
from stepwell.local.code.in_use import needed_code
from stepwell.local.database.lock import exclusive, refuse_if_in_use
from stepwell.local.database.log_files import NAME, log_folder
from stepwell.local.database.schema import MIGRATIONS, BadDatabase, connect
from stepwell.local.system.files import give_to_owner, make_code_folder, make_folder, open_file
from stepwell.project.code_copies import CHANGED, is_copy, remove

_MOST_MANIFEST = 64 * 1024 * 1024
_CODE_NAME = re.compile(r"code/([0-9a-f]{64})/(.+)", re.DOTALL)
_PIECE = 1024 * 1024

Progress = Callable[[int], None]  # bytes unpacked since the last call


class BadBackup(Exception):
    """The file is not a complete backup. The message contains the reason. Nothing was changed."""


class NotRestored(Exception):
    """The existing database was kept. The message contains the reason and what to do."""


@dataclass(frozen=True, slots=True)
class Restored:
    database_bytes: int
    code: int
    made_at: int  # ms since the epoch
    made_by: str  # the version of Stepwell


def restore(file: IO[bytes], database: Path, code: Path, *, force: bool, progress: Progress) -> Restored:
    """Restores a backup to `database` and `code`. Raises BadBackup, NotRestored, lock.InUse, OSError (disk full)."""
    database = database.absolute()
    if database.exists() and not force:
        raise NotRestored(f"{database} exists already; name another --db, or replace it with --force")
    refuse_if_in_use(database)
    with _staging_folder(database) as folder:
        manifest = _unpack(file, folder, progress)
        _check(folder, manifest)
        os.sync()  # all of it must be on disk before it is used
        with exclusive(database):
            if database.exists() and not force:
                raise NotRestored(f"{database} was created meanwhile; name another --db, or replace it with --force")
            for part in (folder / DATABASE, folder / LOGS, folder / CODE):
                if part.exists():
                    give_to_owner(part, database.parent)
            _move_code(folder / CODE, code)
            give_to_owner(code, database.parent)
            _move_logs(folder / LOGS, log_folder(database))
            _replace_database(folder / DATABASE, database.resolve())
    made = manifest["database"]["bytes"], len(manifest["code"]), manifest["created_at"], manifest["stepwell"]
    return Restored(*made)


@contextmanager
def _staging_folder(database: Path) -> Iterator[Path]:
    """An empty private folder on the database's disk. Removes what a killed restore has left there."""
    parent, is_new = database.parent, not database.parent.exists()
    make_folder(parent)
    folder = parent / f".{database.name}.restore"
    make_folder(folder)
    with os.fdopen(open_file(folder / ".lock", os.O_RDWR)) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotRestored(f"another restore of {database} is in progress; wait until it has ended") from None
        try:
            _empty(folder)
            yield folder
        finally:
            _empty(folder)
            (folder / ".lock").unlink()
            folder.rmdir()
            if is_new:
                with contextlib.suppress(OSError):
                    parent.rmdir()  # unless it contains something


def _empty(folder: Path) -> None:
    remove(folder / CODE)
    remove(folder / LOGS)
    for name in (DATABASE, LOG_HASHES):
        (folder / name).unlink(missing_ok=True)


# --- unpacking -------------------------------------------------------------------------------------------------------


def _unpack(file: IO[bytes], folder: Path, progress: Progress) -> dict[str, Any]:
    """Writes the archive's members into the folder, and returns the manifest. Raises BadBackup."""
    try:
        with tarfile.open(fileobj=file, mode="r|") as archive:
            members = iter(archive)
            first = next(members, None)
            if first is None or first.name != MANIFEST or not first.isreg() or first.size > _MOST_MANIFEST:
                raise BadBackup("the file is not a backup made by `stepwell backup`")
            manifest = _manifest(archive, first)
            links: list[tuple[Path, str]] = []
            for member in members:
                _unpack_one(archive, member, folder, links, progress)
            for path, text in links:  # after all files, so that no file is written through a link
                path.parent.mkdir(parents=True, exist_ok=True)
                path.symlink_to(text)
            _close_folders(folder / CODE)
            return manifest
    except (tarfile.TarError, EOFError) as error:
        raise BadBackup(f"the file is not a complete backup made by `stepwell backup`: {error}") from None
    except (FileExistsError, NotADirectoryError, IsADirectoryError, UnicodeError, ValueError) as error:
        raise BadBackup(f"the file is not a backup made by `stepwell backup`: {error}") from None


def _manifest(archive: tarfile.TarFile, member: tarfile.TarInfo) -> dict[str, Any]:
    content = archive.extractfile(member)
    assert content is not None
    try:
        manifest: dict[str, Any] = orjson.loads(content.read())
        version = manifest["format"]
        shape = [manifest["database"]["bytes"], manifest["created_at"], version, *map(len, manifest["code"])]
        texts = [manifest["database"]["sha256"], manifest["stepwell"], *manifest["code"]]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise BadBackup("the file is not a backup made by `stepwell backup`: the manifest cannot be read") from None
    if not all(isinstance(item, int) for item in shape) or not all(isinstance(text, str) for text in texts):
        raise BadBackup("the file is not a backup made by `stepwell backup`: the manifest has values of wrong types")
    if version not in (1, FORMAT):
        raise BadBackup(f"the backup was made by Stepwell {manifest['stepwell']}, in a newer format; upgrade Stepwell")
    return manifest


def _unpack_one(
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    folder: Path,
    links: list[tuple[Path, str]],
    progress: Progress,
) -> None:
    """Writes one member. Only files inside the folder are written, whatever the member's name is."""
    named = _CODE_NAME.fullmatch(member.name)
    if named is not None:
        parts = named[2].split("/")
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise BadBackup(f"{member.name[:100]!r} in the backup leads out of the backup's folder")
    elif not _is_known(member.name) or not member.isreg():
        raise BadBackup(f"{member.name[:100]!r} does not belong in a backup")
    path = folder / member.name
    if member.issym():
        links.append((path, member.linkname))
        return
    if not member.isreg():
        raise BadBackup(f"{member.name[:100]!r} in the backup is neither a file nor a link")
    mode = 0o600 if named is None else 0o555 if member.mode & 0o100 else 0o444
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = archive.extractfile(member)
    assert content is not None
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as target:
        while piece := content.read(_PIECE):
            target.write(piece)
            progress(len(piece))
        os.fchmod(target.fileno(), mode)


def _is_known(name: str) -> bool:
    folder, _, file = name.rpartition("/")
    return name in (DATABASE, LOG_HASHES) or (folder == LOGS and NAME.fullmatch(file) is not None)


def _close_folders(code: Path) -> None:
    for parent, _, _ in os.walk(code, topdown=False):
        if Path(parent) != code:
            Path(parent).chmod(0o555)


# --- verification ----------------------------------------------------------------------------------------------------


def _check(folder: Path, manifest: dict[str, Any]) -> None:
    """Verifies an unpacked backup. Raises BadBackup."""
    copy = folder / DATABASE
    if not copy.is_file() or copy.stat().st_size != manifest["database"]["bytes"]:
        raise BadBackup("the backup is incomplete: the database is cut off")
    with copy.open("rb") as content:
        if hashlib.file_digest(content, "sha256").hexdigest() != manifest["database"]["sha256"]:
            raise BadBackup("the backup is damaged: the database does not match the hash in the manifest")
    needed = _check_database(copy)
    _check_logs(folder, manifest)
    there = {path.name for path in (folder / CODE).iterdir()} if (folder / CODE).is_dir() else set()
    for code_hash in {*manifest["code"], *there, *needed}:
        if code_hash not in there or code_hash not in manifest["code"]:
            raise BadBackup(f"the backup is incomplete: the code {code_hash[:12]} is missing")
        if not is_copy(folder / CODE / code_hash, code_hash):
            raise BadBackup(f"the backup is damaged: the code {code_hash[:12]} does not match the hash")


def _check_logs(folder: Path, manifest: dict[str, Any]) -> None:
    """Verifies the logs. Raises BadBackup. Backups of format 1 contain no logs."""
    there = {path.name: path for path in (folder / LOGS).iterdir()} if (folder / LOGS).is_dir() else {}
    try:
        hashes = orjson.loads((folder / LOG_HASHES).read_bytes()) if manifest["format"] > 1 else {}
    except (FileNotFoundError, orjson.JSONDecodeError):
        raise BadBackup("the backup is incomplete: the hashes of the logs are missing") from None
    if not isinstance(hashes, dict) or hashes.keys() != there.keys():
        raise BadBackup("the backup is incomplete: the logs are not those that were backed up")
    for name, path in there.items():
        with path.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != hashes[name]:
                raise BadBackup(f"the backup is damaged: the log {name} does not match the hash")


def _check_database(copy: Path) -> Sequence[str]:
    """Verifies the database. Returns the hashes of the code that it needs. Creates no file beside it."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{copy}?immutable=1", uri=True)) as connection:
            (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            (schema,) = connection.execute("PRAGMA user_version").fetchone()
            if verdict != "ok":
                raise BadBackup(f"the backup's database is damaged: {verdict}")
            if schema > len(MIGRATIONS):
                raise BadBackup(f"the backup's database has schema {schema}, Stepwell supports {len(MIGRATIONS)}:"
                                " upgrade Stepwell")  # fmt: skip
            return list(needed_code(connection))
    except (sqlite3.Error, orjson.JSONDecodeError) as error:
        raise BadBackup(f"the backup's database cannot be read: {error}") from None


# --- moving it into place --------------------------------------------------------------------------------------------


def _move_code(new: Path, code: Path) -> None:
    make_code_folder(code)
    for folder in new.iterdir() if new.is_dir() else ():
        target = code / folder.name
        if is_copy(target, folder.name):
            continue
        aside = code / f"{CHANGED}{folder.name}"
        remove(aside)
        if target.exists():
            target.rename(aside)
        folder.rename(target)
        remove(aside)


def _move_logs(new: Path, logs: Path) -> None:
    if new.is_dir():
        make_folder(logs)
        give_to_owner(logs, logs.parent)
        for file in new.iterdir():
            file.rename(logs / file.name)


def _replace_database(new: Path, database: Path) -> None:
    """Replaces the database. The old one's journal files are removed first: SQLite would apply them to the new one."""
    if database.exists():
        _write_back(database)
    for suffix in ("-wal", "-shm", "-journal"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    new.rename(database)
    descriptor = os.open(database.parent, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _write_back(database: Path) -> None:
    """Checkpoints the old database, so that it is complete if the restore is interrupted. Raises NotRestored."""
    try:
        with contextlib.closing(connect(database)) as connection:
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except (BadDatabase, sqlite3.DatabaseError):
        return  # not a database, or a damaged one
    if busy:
        raise NotRestored(f"another process is using {database}; stop it first")

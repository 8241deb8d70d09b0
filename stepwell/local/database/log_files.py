"""Long logs are files beside the database, one per attempt; a file continues the attempt's rows in `logs`.

The table `log_files` contains their names. One thread writes and removes files, so that operations happen in order.
A file name is never used twice: it contains the attempt's numbers and random digits, since a restored database reuses
numbers. Files without a row, which a crash may leave, are removed at the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import secrets
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from stepwell.local.database.schema import BadDatabase, connect
from stepwell.local.system.files import make_folder, open_file

log = logging.getLogger("stepwell.logs")

NAME = re.compile(r"([0-9]+)-([0-9]+)-([0-9]+)-[0-9a-f]{16}\.log")
_AT_ONCE = 1024 * 1024  # bytes that wake the writing thread immediately
_DELAY_S = 0.05  # how long fewer bytes wait


def log_folder(database: Path) -> Path:
    """The folder of log files, hidden like the folder of code."""
    return database.absolute().with_name(f".{database.name}.logs")


def new_name(run: int, step: int, attempt: int) -> str:
    return f"{run}-{step}-{attempt}-{secrets.token_hex(8)}.log"


def read_logs(connection: sqlite3.Connection, folder: Path, run: int) -> dict[tuple[int, int], bytes]:
    """The written logs of a run, by step and attempt."""
    pieces: dict[tuple[int, int], list[bytes]] = {}
    sql = "SELECT step, attempt, text FROM logs WHERE run = ? ORDER BY step, attempt, seq"
    for step, attempt, text in connection.execute(sql, (run,)):
        pieces.setdefault((step, attempt), []).append(text)
    for step, attempt, name in connection.execute("SELECT step, attempt, name FROM log_files WHERE run = ?", (run,)):
        with contextlib.suppress(FileNotFoundError):  # nothing is written yet, or the file was removed
            pieces.setdefault((step, attempt), []).append((folder / name).read_bytes())
    return {key: b"".join(texts) for key, texts in pieces.items()}


def take_log_files(connection: sqlite3.Connection, run: int) -> list[str]:
    """Deletes the rows of a run's log files. Returns the names of the files, to be removed after the commit."""
    names = [name for (name,) in connection.execute("SELECT name FROM log_files WHERE run = ?", (run,))]
    if names:
        connection.execute("DELETE FROM log_files WHERE run = ?", (run,))
    return names


@dataclass(slots=True, eq=False)
class LogFile:
    """A log file that is being written. `pieces` are not written yet."""

    name: str
    pieces: deque[bytes] = field(default_factory=deque)
    waiting: int = 0  # bytes of pieces since the thread was last woken
    timer: asyncio.TimerHandle | None = None
    is_broken: bool = False


class LogFiles:
    """Writes and removes log files. Call the methods on the event loop's thread; they do not block."""

    def __init__(self, database: Path, *, durable: bool = False) -> None:
        self._database, self._folder, self._durable = database, log_folder(database), durable
        self._thread = ThreadPoolExecutor(1, "logs")
        self._loop = asyncio.get_running_loop()
        self._unwritten: set[LogFile] = set()  # files with a timer

    def append(self, file: LogFile, text: bytes) -> None:
        """Appends text to the file soon, in the writing thread."""
        file.pieces.append(text)
        file.waiting += len(text)
        if file.waiting > _AT_ONCE:
            self._write_soon(file)
        elif file.timer is None:
            file.timer = self._loop.call_later(_DELAY_S, self._write_soon, file)
            self._unwritten.add(file)

    def finish(self, file: LogFile, then: Callable[[], None]) -> None:
        """Calls `then` on the event loop once the whole file is written, and synced if the server is durable."""
        future = self._write_soon(file)
        future.add_done_callback(lambda _: then())

    async def remove(self, names: Iterable[str]) -> None:
        """Removes files, and waits until they are gone. Pending writes to them happen first."""
        if names := list(names):
            await self._loop.run_in_executor(self._thread, self._remove, names)

    def remove_orphans(self) -> asyncio.Future[None]:
        """Removes files that no row refers to. Call it before the first file is written."""
        return self._loop.run_in_executor(self._thread, self._remove_orphans)

    async def close(self) -> None:
        """Writes all pending text, and waits for it."""
        for file in list(self._unwritten):
            self._write_soon(file)
        await asyncio.to_thread(self._thread.shutdown)

    def _write_soon(self, file: LogFile) -> asyncio.Future[None]:
        file.waiting = 0
        if file.timer is not None:
            file.timer.cancel()
            file.timer = None
            self._unwritten.discard(file)
        return self._loop.run_in_executor(self._thread, self._write, file)

    # --- in the thread ---------------------------------------------------------------------------------------------

    def _write(self, file: LogFile) -> None:
        pieces = [file.pieces.popleft() for _ in range(len(file.pieces))]
        if not pieces or file.is_broken:
            return
        try:
            self._append(file.name, b"".join(pieces))
        except OSError as error:  # the run continues: the outcome matters more than the log
            file.is_broken = True
            log.error("the log %s is incomplete, since the file cannot be written: %s", self._folder / file.name, error)

    def _append(self, name: str, text: bytes) -> None:
        make_folder(self._folder)
        descriptor = open_file(self._folder / name, os.O_WRONLY | os.O_APPEND)
        try:
            left = memoryview(text)
            while left:
                left = left[os.write(descriptor, left) :]
            if self._durable:
                os.fsync(descriptor)
                _sync_folder(self._folder)
        finally:
            os.close(descriptor)

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            try:
                (self._folder / name).unlink(missing_ok=True)
            except OSError as error:
                log.error("the log %s cannot be removed, remove it by hand: %s", self._folder / name, error)

    def _remove_orphans(self) -> None:
        try:
            names = os.listdir(self._folder)  # noqa: PTH208 (names, of which there may be many)
        except FileNotFoundError:
            return
        try:
            with contextlib.closing(connect(self._database, read_only=True)) as connection:
                self._remove([name for name in names if not _is_named(connection, name)])
        except (BadDatabase, sqlite3.Error) as error:
            log.warning("unused log files are not removed before the next start: %s", error)


def _is_named(connection: sqlite3.Connection, name: str) -> bool:
    """Whether a row refers to this file. Files with other kinds of names are not Stepwell's, and stay."""
    found = NAME.fullmatch(name)
    if found is None:
        return True
    sql = "SELECT name FROM log_files WHERE run = ? AND step = ? AND attempt = ?"
    row = connection.execute(sql, tuple(map(int, found.groups()))).fetchone()
    return row is not None and row[0] == name


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

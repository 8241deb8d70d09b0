"""Keeps the database's write-ahead log (the file `-wal`) small, and clear of erased data.

By default, SQLite checkpoints the log within a commit, and all requests wait for that. While a server runs, a thread
checkpoints the log instead, and the writer continues. Then the writer is blocked for some milliseconds: the rest is
checkpointed, readers of the log finish, and the log restarts from the beginning of the file. The file keeps its size,
because overwriting cached pages takes half as long as growing a file. It is truncated only if it is too large or
contains erased data.

Long readers do not block the server. Whatever they keep from being checkpointed is tried again later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

from stepwell.local.database.schema import WAL_BYTES, WAL_PAGES, connect

log = logging.getLogger("stepwell.database")

_EVERY_S = 0.25
_AGAIN_S = 30.0  # the longest time between two attempts to truncate the log
_WRITE_BACK_BYTES = 32 * 1024 * 1024
_FEW_PAGES = 500  # that may be checkpointed while the writer is blocked
_ROUNDS = 3
_READERS_MS = 20  # how long readers may block the writer
_PATIENCE_S = 2.0  # to wait for readers that are about to finish
# The file `-wal` (https://www.sqlite.org/fileformat2.html#the_write_ahead_log): the headers of the file and of all
# pages contain salts, which change when the log restarts.
_HEAD_BYTES, _PAGE_HEAD_BYTES = 32, 24
_SALTS, _PAGE_SALTS, _SALT_BYTES = 16, 8, 8
_PAGE_BYTES = 4096 + _PAGE_HEAD_BYTES
_LARGEST_WIPE = 512 * 1024 * 1024  # bytes of a database that VACUUM rewrites within about 5 s


# Runs a function in a thread while no batch is written. Returns the function's result.
RunExclusively = Callable[[Callable[[], bool]], Awaitable[bool]]


class WriteAheadLog:
    """Checkpoints the log, and restarts it when `write_back_bytes` have been added. Truncates the file when it has more
    than `most_bytes`, and logs a warning at four times as much."""

    def __init__(self, database: Path, most_bytes: int = WAL_BYTES, write_back_bytes: int = _WRITE_BACK_BYTES) -> None:
        self._database, self._most_bytes, self._write_back_bytes = database, most_bytes, write_back_bytes
        self._tried = 0  # bytes that the last checkpoint could not write back
        self._done = (b"", 0)  # the log's salts and number of pages at the last complete checkpoint
        self._path = Path(f"{database.resolve()}-wal")
        self._holds_erased = False  # the log may contain erased data
        self._warn_at = 4 * most_bytes

    @property
    def size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def left(self) -> int:
        """Bytes that are not checkpointed, as far as this object knows."""
        (salts, pages), (done_salts, done) = self._pages(), self._done
        return (pages - done if salts == done_salts else pages) * _PAGE_BYTES

    def _pages(self) -> tuple[bytes, int]:
        """The salts of the log and the number of pages. Pages with other salts belong to an earlier log.

        The file `-shm` contains the number too. But opening and closing it would drop this process's locks on it
        (https://www.sqlite.org/howtocorrupt.html, 2.2). SQLite has no locks on the log itself.
        """
        try:
            with self._path.open("rb", buffering=0) as file:
                salts = file.read(_HEAD_BYTES)[_SALTS : _SALTS + _SALT_BYTES]
                low, high = 0, max(0, self.size - _HEAD_BYTES) // _PAGE_BYTES
                while low < high:
                    middle = (low + high) // 2
                    file.seek(_HEAD_BYTES + middle * _PAGE_BYTES + _PAGE_SALTS)
                    low, high = (middle + 1, high) if file.read(_SALT_BYTES) == salts else (low, middle)
                return salts, low
        except FileNotFoundError:
            return b"", 0

    def write_back(self) -> int:
        """Checkpoints the log as far as readers allow. Returns the number of pages that are left."""
        before = self._pages()
        with contextlib.closing(connect(self._database)) as connection:
            left = _checkpoint(connection, "PASSIVE")
        if left == 0:
            self._done = before
        return left

    def shrink(self) -> bool:
        """Checkpoints the log and truncates the file. Returns False if a reader or writer prevents it."""
        with contextlib.closing(connect(self._database)) as connection:
            connection.execute(f"PRAGMA busy_timeout = {_READERS_MS}")
            is_cut = _checkpoint(connection, "PASSIVE") < _FEW_PAGES and _checkpoint(connection, "TRUNCATE") == 0
        self._holds_erased = self._holds_erased and not is_cut
        return is_cut

    def restart(self) -> bool:
        """Checkpoints the log, so that the next writer overwrites it. Returns False if a reader prevents it. Must not
        run while a batch is written."""
        if self._holds_erased or self.size > self._most_bytes:
            return self.shrink()
        with contextlib.closing(connect(self._database)) as connection:
            connection.execute(f"PRAGMA busy_timeout = {_READERS_MS}")
            has_restarted = _checkpoint(connection, "PASSIVE") < _FEW_PAGES and _checkpoint(connection, "RESTART") == 0
        if has_restarted:
            self._done = self._pages()
        return has_restarted

    def wipe(self) -> None:
        """Rewrites the database with VACUUM, so that unused parts of pages contain no deleted data.

        Must not run while a batch is written. Raises sqlite3.Error."""
        size = self._database.stat().st_size
        self._holds_erased = True
        if size > _LARGEST_WIPE:
            log.warning(
                "%s has %d MB, too much to rewrite it after each erasure: unused parts of its pages may contain"
                " erased data until you stop the server and run: sqlite3 %s VACUUM",
                *(self._database, size >> 20, self._database),
            )
            return
        with contextlib.closing(connect(self._database)) as connection:
            connection.execute("VACUUM")

    async def shrink_soon(self) -> None:
        """Truncates the log, if readers allow it within two seconds; otherwise `keep_small` tries again."""
        deadline = asyncio.get_running_loop().time() + _PATIENCE_S
        while not await asyncio.to_thread(self.shrink):
            if asyncio.get_running_loop().time() > deadline:
                log.warning("%s contains erased data until the current readers of the database finish", self._path)
                return
            await asyncio.sleep(0.05)

    async def keep_small(
        self,
        writer: sqlite3.Connection | None = None,
        exclusively: RunExclusively = asyncio.to_thread,
        every_s: float = _EVERY_S,
    ) -> None:
        """Checkpoints the log regularly, forever. Commits of `writer` do not checkpoint it meanwhile.

        `exclusively` runs a function in a thread while no batch is written."""
        if writer is not None:
            writer.execute("PRAGMA wal_autocheckpoint = 0")
        try:
            await self._checkpoint_forever(exclusively, every_s)
        finally:
            if writer is not None:
                with contextlib.suppress(sqlite3.Error):  # it may be closed
                    writer.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")

    async def _checkpoint_forever(self, exclusively: RunExclusively, every_s: float) -> None:
        loop, again_s = asyncio.get_running_loop(), every_s
        again_at = loop.time()
        while True:
            await asyncio.sleep(every_s)
            has_grown = self.left > self._tried + self._write_back_bytes
            is_left = loop.time() >= again_at and (self._holds_erased or self.size > self._most_bytes)
            if has_grown or is_left:
                has_restarted = await self._restart(exclusively)
                again_s = every_s if has_restarted else min(2 * again_s, _AGAIN_S)
                again_at = loop.time() + again_s

    async def _restart(self, exclusively: RunExclusively) -> bool:
        """Checkpoints and restarts the log. Returns whether that succeeded."""
        has_restarted = False
        try:
            for _ in range(_ROUNDS):  # each round checkpoints what was added during the one before
                if await asyncio.to_thread(self.write_back) < _FEW_PAGES:
                    has_restarted = await exclusively(self.restart)
                    break
        except sqlite3.Error as error:
            log.warning("%s cannot be checkpointed: %s", self._path, error)
        self._tried = 0 if has_restarted else self.left
        self._warn_if_large(has_restarted)
        return has_restarted

    def _warn_if_large(self, has_restarted: bool) -> None:
        if has_restarted:
            self._warn_at = 4 * self._most_bytes
        elif (size := self.size) > self._warn_at:
            self._warn_at = 2 * size
            log.warning(
                "%s has %d MB, because a long reader (a copy of the database, sqlite3 in a shell) is still open;"
                " it shrinks when the reader finishes",
                *(self._path, size >> 20),
            )


def _checkpoint(connection: sqlite3.Connection, mode: str) -> int:
    """Runs a checkpoint. Returns the number of pages that are left in the log."""
    busy, in_log, written_back = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    return int(in_log - written_back) or int(busy)

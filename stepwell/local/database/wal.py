"""The database's write-ahead log (the file `-wal`): it stays small, and keeps nothing of what was erased.

By itself, SQLite writes the log back within a commit, and all requests wait for that. While a server runs, a thread
writes it back instead, and the writer goes on meanwhile. Then the writer is held for some milliseconds: what it has
added is written back, those who read the log end, and the log begins anew. Its file stays as large as it is, since to
write over what the system has in memory takes half as long as to make a file grow. It is cut only where it is too
large, or holds what was erased.

One rule: nobody waits for long readers. What they keep from being written back is tried again later.
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
_AGAIN_S = 30.0  # the longest time between two tries to cut the log
_WRITE_BACK_BYTES = 32 * 1024 * 1024
_FEW_PAGES = 500  # that may be written back while the writer is held
_ROUNDS = 3
_READERS_MS = 20  # how long readers may keep the writer waiting
_PATIENCE_S = 2.0  # for readers that are about to end
# The file `-wal` (https://www.sqlite.org/fileformat2.html#the_write_ahead_log): its head, and that of each page in it,
# have salts, which change when it begins anew.
_HEAD_BYTES, _PAGE_HEAD_BYTES = 32, 24
_SALTS, _PAGE_SALTS, _SALT_BYTES = 16, 8, 8
_PAGE_BYTES = 4096 + _PAGE_HEAD_BYTES
_LARGEST_WIPE = 512 * 1024 * 1024  # bytes of a database that is written anew within some 5 s


Alone = Callable[[Callable[[], bool]], Awaitable[bool]]


class WriteAheadLog:
    """It is written back, and begins anew, when `write_back_bytes` have been added. It is cut when it has more than
    `most_bytes`. A log of four times as much is warned of."""

    def __init__(self, database: Path, most_bytes: int = WAL_BYTES, write_back_bytes: int = _WRITE_BACK_BYTES) -> None:
        self._database, self._most_bytes, self._write_back_bytes = database, most_bytes, write_back_bytes
        self._tried = 0  # what could not be written back the last time, in bytes
        self._done = (b"", 0)  # salts of the log, and its pages, when it was last written back as a whole
        self._path = Path(f"{database.resolve()}-wal")
        self._holds_erased = False  # bytes of what was erased may be in it
        self._warn_at = 4 * most_bytes

    @property
    def size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def left(self) -> int:
        """Bytes that are not written back, as far as this object knows."""
        (salts, pages), (done_salts, done) = self._pages(), self._done
        return (pages - done if salts == done_salts else pages) * _PAGE_BYTES

    def _pages(self) -> tuple[bytes, int]:
        """The salts of the log, and how many pages it has. What stands behind them is of an earlier log.

        The file `-shm` says that, too. But to open and close it would drop the locks that this process has on it
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
        """Copy the log into the database, as far as readers allow; how many pages are left."""
        before = self._pages()
        with contextlib.closing(connect(self._database)) as connection:
            left = _checkpoint(connection, "PASSIVE")
        if left == 0:
            self._done = before
        return left

    def shrink(self) -> bool:
        """Write the log back and cut it to nothing; False if somebody who reads or writes keeps it from that."""
        with contextlib.closing(connect(self._database)) as connection:
            connection.execute(f"PRAGMA busy_timeout = {_READERS_MS}")
            is_cut = _checkpoint(connection, "PASSIVE") < _FEW_PAGES and _checkpoint(connection, "TRUNCATE") == 0
        self._holds_erased = self._holds_erased and not is_cut
        return is_cut

    def begin_anew(self) -> bool:
        """Write the log back, so that whoever writes next writes over it; False if somebody keeps it from that. Nobody
        may write meanwhile."""
        if self._holds_erased or self.size > self._most_bytes:
            return self.shrink()
        with contextlib.closing(connect(self._database)) as connection:
            connection.execute(f"PRAGMA busy_timeout = {_READERS_MS}")
            is_anew = _checkpoint(connection, "PASSIVE") < _FEW_PAGES and _checkpoint(connection, "RESTART") == 0
        if is_anew:
            self._done = self._pages()
        return is_anew

    def wipe(self) -> None:
        """Write the database anew, so that nothing of what was deleted is left between its rows, and cut the log. No
        batch may be written meanwhile. Raises sqlite3.Error."""
        size = self._database.stat().st_size
        self._holds_erased = True
        if size > _LARGEST_WIPE:
            log.warning(
                "%s has %d MB, too much to write it anew after each erasure: traces of what was erased may be left in"
                " unused parts of its pages until you stop the server and run: sqlite3 %s VACUUM",
                *(self._database, size >> 20, self._database),
            )
            return
        with contextlib.closing(connect(self._database)) as connection:
            connection.execute("VACUUM")

    async def shrink_soon(self) -> None:
        """Cut the log, if readers let that be within a moment; else `keep_small` goes on with it."""
        deadline = asyncio.get_running_loop().time() + _PATIENCE_S
        while not await asyncio.to_thread(self.shrink):
            if asyncio.get_running_loop().time() > deadline:
                log.warning("what was erased stays in %s until those have ended who read the database", self._path)
                return
            await asyncio.sleep(0.05)

    async def keep_small(
        self, writer: sqlite3.Connection | None = None, alone: Alone = asyncio.to_thread, every_s: float = _EVERY_S
    ) -> None:
        """Look at the log again and again, for ever. Meanwhile no commit of `writer` writes it back. `alone` does work
        in a thread while nobody writes."""
        if writer is not None:
            writer.execute("PRAGMA wal_autocheckpoint = 0")
        try:
            await self._tend_for_ever(alone, every_s)
        finally:
            if writer is not None:
                with contextlib.suppress(sqlite3.Error):  # it may be closed
                    writer.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")

    async def _tend_for_ever(self, alone: Alone, every_s: float) -> None:
        loop, again_s = asyncio.get_running_loop(), every_s
        again_at = loop.time()
        while True:
            await asyncio.sleep(every_s)
            has_grown = self.left > self._tried + self._write_back_bytes
            is_left = loop.time() >= again_at and (self._holds_erased or self.size > self._most_bytes)
            if has_grown or is_left:
                is_anew = await self._begin_anew(alone)
                again_s = every_s if is_anew else min(2 * again_s, _AGAIN_S)
                again_at = loop.time() + again_s

    async def _begin_anew(self, alone: Alone) -> bool:
        """Whether that was possible."""
        is_anew = False
        try:
            for _ in range(_ROUNDS):  # each has only to do what was added during the one before
                if await asyncio.to_thread(self.write_back) < _FEW_PAGES:
                    is_anew = await alone(self.begin_anew)
                    break
        except sqlite3.Error as error:
            log.warning("%s cannot be written back: %s", self._path, error)
        self._tried = 0 if is_anew else self.left
        self._tell_of_it(is_anew)
        return is_anew

    def _tell_of_it(self, is_anew: bool) -> None:
        if is_anew:
            self._warn_at = 4 * self._most_bytes
        elif (size := self.size) > self._warn_at:
            self._warn_at = 2 * size
            log.warning(
                "%s has %d MB, since somebody has been reading the database for long (a copy of it, sqlite3 in a"
                " shell); it shrinks once they have ended",
                *(self._path, size >> 20),
            )


def _checkpoint(connection: sqlite3.Connection, mode: str) -> int:
    """How many pages are not written back."""
    busy, in_log, written_back = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    return int(in_log - written_back) or int(busy)

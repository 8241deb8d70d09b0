"""The database's write-ahead log (the file `-wal`): it stays small, and keeps nothing of what was erased.

SQLite writes the log back into the database by itself, and begins it anew, unless somebody is reading: then it grows
until they are done. One rule: nobody waits for readers. What they keep from being written back is tried again later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from pathlib import Path

from stepwell.local.schema import WAL_BYTES, connect

log = logging.getLogger("stepwell.database")

_EVERY_S = 30.0
_PATIENCE_S = 2.0  # for readers that are about to end
_LARGEST_WIPE = 512 * 1024 * 1024  # bytes of a database that is written anew within some 5 s


class WriteAheadLog:
    """`most_bytes`: what it may have without being looked after; people are told when it has four times as much."""

    def __init__(self, database: Path, most_bytes: int = WAL_BYTES) -> None:
        self._database, self._most_bytes = database, most_bytes
        self._path = Path(f"{database.resolve()}-wal")
        self._holds_erased = False  # bytes of what was erased may be in it
        self._warn_at = 4 * most_bytes

    @property
    def size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def shrink(self) -> bool:
        """Write the log back and cut it to nothing; False if somebody who reads or writes keeps it from that."""
        with contextlib.closing(connect(self._database)) as connection:
            connection.execute("PRAGMA busy_timeout = 0")
            return _checkpoint(connection, "PASSIVE") and _checkpoint(connection, "TRUNCATE")

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
        self._holds_erased = False

    async def keep_small(self, every_s: float = _EVERY_S) -> None:
        """Look at the log again and again, for ever."""
        while True:
            await asyncio.sleep(every_s)
            if self._holds_erased or self.size > self._most_bytes:
                await self._tend()

    async def _tend(self) -> None:
        try:
            if await asyncio.to_thread(self.shrink):
                self._holds_erased, self._warn_at = False, 4 * self._most_bytes
        except sqlite3.Error as error:
            log.warning("%s cannot be written back: %s", self._path, error)
        if (size := self.size) > self._warn_at:
            self._warn_at = 2 * size
            log.warning(
                "%s has %d MB, since somebody has been reading the database for long (a copy of it, sqlite3 in a"
                " shell); it shrinks once they have ended",
                *(self._path, size >> 20),
            )


def _checkpoint(connection: sqlite3.Connection, mode: str) -> bool:
    busy, in_log, written_back = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    return not busy and in_log == written_back

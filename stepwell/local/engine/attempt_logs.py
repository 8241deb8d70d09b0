"""Logs of attempts: the beginning goes into the database with the next batch, the rest of a long log into a file.

An attempt ends only after its log is written.
"""

from __future__ import annotations

from collections.abc import Callable

from stepwell.local.database.log_files import LogFile, LogFiles
from stepwell.local.store.store import LocalStore
from stepwell.platform import AttemptId

IN_DATABASE = 64 * 1024  # bytes of an attempt's log that are stored in the database


class AttemptLogs:
    def __init__(self, store: LocalStore, files: LogFiles) -> None:
        self._store, self._files = store, files
        self._sizes: dict[AttemptId, int] = {}  # bytes in the database
        self._long: dict[AttemptId, LogFile | None] = {}  # None: the run does not exist any more
        self._seq = 0

    def add(self, attempt: AttemptId, at: int, stream: str, text: bytes) -> None:
        if attempt in self._long:
            file = self._long[attempt]
        elif (size := self._sizes.get(attempt, 0) + len(text)) > IN_DATABASE:
            name = self._store.logs.add_file(*attempt)
            file = self._long[attempt] = None if name is None else LogFile(name)
        else:
            self._sizes[attempt] = size
            self._seq += 1
            self._store.logs.add(*attempt, self._seq, at, stream, text)
            return
        if file is not None:
            self._files.append(file, text)

    def finish(self, attempt: AttemptId, then: Callable[[], None]) -> None:
        """Ends an attempt's log. Calls `then` once the log is written, except for rows that the next batch writes."""
        self._sizes.pop(attempt, None)
        file = self._long.pop(attempt, None)
        if file is None:
            then()
        else:
            self._files.finish(file, then)

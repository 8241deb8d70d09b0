"""What lists show of ended runs, as JSON texts in memory: a run that has ended is encoded once, not at every read."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple

_MOST_BYTES = 8 * 1024 * 1024  # some thousand runs: who polls asks for the newest
_LARGEST = 1024 * 1024  # of one text
_AROUND = 400  # bytes that an entry takes besides


class RunRow(NamedTuple):
    """A run as it is stored, but for its attempts."""

    seq: int
    id: str
    function: str
    version: int
    event_id: str
    user: str | None
    rerun_of: str | None
    replay: str | None
    state: bytes
    is_active: int
    ended_at: int | None

    @property
    def key(self) -> tuple[int, bytes]:
        """Changes with whatever lists show of the run, but for an erasure."""
        return self.seq, self.state

    @property
    def is_over(self) -> bool:
        """Nothing more happens to it: the attempts of a failed run may still end."""
        return self.ended_at is not None and not self.is_active


class RunTexts:
    """Texts by a key that changes with what they show; those that were read longest ago go first. Used by any thread.

    `erasures` says how many users had been erased when the caller began to read: texts of an earlier time are dropped,
    and are not taken from a reader that began earlier.
    """

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._texts: OrderedDict[Hashable, bytes] = OrderedDict()
        self._erasures = 0
        self.bytes = 0

    def get(self, key: Hashable, erasures: int) -> bytes | None:
        with self._lock:
            if not self._is_current(erasures):
                return None
            text = self._texts.get(key)
            if text is not None:
                self._texts.move_to_end(key)
            return text

    def put(self, key: Hashable, text: bytes, erasures: int) -> None:
        with self._lock:
            if len(text) > _LARGEST or not self._is_current(erasures) or key in self._texts:
                return
            self._texts[key] = text
            self.bytes += len(text) + _AROUND
            while self.bytes > self._most_bytes:
                _, oldest = self._texts.popitem(last=False)
                self.bytes -= len(oldest) + _AROUND

    def _is_current(self, erasures: int) -> bool:
        if erasures > self._erasures:
            self._texts.clear()
            self._erasures, self.bytes = erasures, 0
        return erasures == self._erasures

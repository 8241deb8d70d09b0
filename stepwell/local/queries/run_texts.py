"""JSON texts of ended runs in memory, so that lists encode each ended run once and not at every read."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple

_MOST_BYTES = 8 * 1024 * 1024  # some thousand runs; clients that poll request the newest ones
_LARGEST = 1024 * 1024  # bytes of one text
_AROUND = 400  # bytes that an entry takes in addition


class RunRow(NamedTuple):
    """A stored run without its attempts."""

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
        """Changes whenever the run looks different in a list, except after an erasure."""
        return self.seq, self.state

    @property
    def is_over(self) -> bool:
        """Whether the run cannot change any more. Attempts of a failed run may still be running."""
        return self.ended_at is not None and not self.is_active


class RunTexts:
    """A cache of texts by key; the least recently read texts are dropped first. Safe to use from any thread.

    A key must change whenever the text would. `erasures` is the number of erasures when the caller began to read. A
    higher number clears the cache, and callers with a lower number do not use it.
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

"""Parses large bodies one at a time: in slices on the event loop's thread, or in another thread.

Python code in another thread delays the event loop: the loop releases the interpreter's lock at every call of SQLite,
and must wait to get it back. With many such threads, the loop waited for 0.1 s.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from typing import TypeVar

T = TypeVar("T")

_SLICE_S = 0.003  # the longest time for which a slice may block the event loop


class Turns:
    """Runs one piece of work at a time. `slice_s`: seconds after which other tasks of the event loop run."""

    def __init__(self, slice_s: float = _SLICE_S) -> None:
        self._slice_s = slice_s
        self._turn = asyncio.Lock()

    async def in_pieces(self, pieces: Generator[None, None, T]) -> T:
        """Runs a generator and returns the result. Other tasks may run at each `yield`."""
        async with self._turn:
            slice_ends = time.perf_counter() + self._slice_s
            while True:
                try:
                    next(pieces)
                except StopIteration as end:
                    value: T = end.value
                    return value
                if time.perf_counter() >= slice_ends:
                    await asyncio.sleep(0)
                    slice_ends = time.perf_counter() + self._slice_s

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Runs `work` in a thread and returns the result. `work` must not wait for the network."""
        async with self._turn:
            return await asyncio.to_thread(work)

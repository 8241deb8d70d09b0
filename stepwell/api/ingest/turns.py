"""Large bodies are read one at a time: in small pieces on the event loop's thread, or else in a thread.

A thread beside the loop is no good place for what is not written in C: the loop gives the interpreter's lock away at
every call of SQLite, and then waits for it. Many threads at once kept it waiting for a tenth of a second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from typing import TypeVar

T = TypeVar("T")

_SLICE_S = 0.003  # how long the loop's thread may be kept


class Turns:
    """`slice_s`: seconds after which others have their turn."""

    def __init__(self, slice_s: float = _SLICE_S) -> None:
        self._slice_s = slice_s
        self._turn = asyncio.Lock()

    async def in_pieces(self, pieces: Generator[None, None, T]) -> T:
        """What the generator returns. Others have their turn at its yields."""
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
        """What `work` returns; it must not wait for the network."""
        async with self._turn:
            return await asyncio.to_thread(work)

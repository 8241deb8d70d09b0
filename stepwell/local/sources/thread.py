"""A thread that runs blocking calls in order. It is abandoned, not waited for, if a call does not return."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class CallThread:
    """Runs calls one at a time in a daemon thread, which starts with the first call."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def call(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Runs this after the calls before it. The future has the result."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._calls.put((future, work))
        return future

    def end(self) -> None:
        """Lets the thread end after the calls so far."""
        self._calls.put(None)

    def _run(self) -> None:
        while (item := self._calls.get()) is not None:
            future, work = item
            if future.cancelled():
                continue
            result: Any = None
            problem: BaseException | None = None
            try:
                result = work()
            except BaseException as error:
                problem = error
            try:
                future.get_loop().call_soon_threadsafe(_resolve, future, result, problem)
            except RuntimeError:  # the event loop is closed: the server has stopped
                return


def _resolve(future: asyncio.Future[Any], result: Any, problem: BaseException | None) -> None:
    if future.done():
        return
    if problem is None:
        future.set_result(result)
    else:
        future.set_exception(problem)
        future.exception()  # marks it as seen, because nobody may wait for it any more

"""Tasks whose results are expected, and how results come to them from the thread that finds them."""

from __future__ import annotations

import asyncio
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import suppress

from stepwell.local.celery.addresses import shown, without_secrets
from stepwell.local.celery.outcomes import Meta, has_ended

log = logging.getLogger("stepwell.celery")
Found = tuple[str, Meta]  # a task's id and what a backend knows about the task


class Results(ABC):
    """The results of one backend. A thread of its own finds them; all methods are called on the event loop's thread."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[str, asyncio.Future[Meta]] = {}
        self._is_closed = False
        self._problem = ""  # of the thread: the latest one that was logged
        self._thread = threading.Thread(target=self._work, name=f"stepwell-celery-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def expect(self, task_id: str) -> asyncio.Future[Meta]:
        """The end of the task. Call `forget` afterwards."""
        future: asyncio.Future[Meta] = self._loop.create_future()
        self._waiting[task_id] = future
        self._expected(task_id)
        return future

    def forget(self, task_id: str) -> None:
        """Stops looking for the end of a task."""
        self._waiting.pop(task_id, None)
        self._forgotten(task_id)

    async def close(self) -> None:
        self._is_closed = True
        self._wake()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, 2)

    def _deliver(self, found: Iterable[Found]) -> None:
        """Hands over results, from the thread."""
        ended = [(task_id, meta) for task_id, meta in found if has_ended(meta)]
        if ended:
            with suppress(RuntimeError):  # the event loop is closed
                self._loop.call_soon_threadsafe(self._receive, ended)

    def _receive(self, found: Iterable[Found]) -> None:
        for task_id, meta in found:
            future = self._waiting.get(task_id)
            if future is None:
                self._unexpected(task_id)
            elif not future.done():
                future.set_result(meta)

    def _unexpected(self, task_id: str) -> None:  # noqa: B027
        """Called for a result that nothing waits for."""

    def _failed(self, error: Exception, address: str) -> None:
        """Logs why results cannot be read, once for each reason."""
        reason = without_secrets(str(error) or type(error).__name__, address)
        if reason != self._problem:
            log.warning("results at %s cannot be read, trying again: %s", shown(address), reason)
        self._problem = reason

    def _succeeded(self) -> None:
        self._problem = ""

    @abstractmethod
    def _expected(self, task_id: str) -> None:
        """Tells the thread that a result is expected."""

    @abstractmethod
    def _forgotten(self, task_id: str) -> None:
        """Tells the thread that a result is not expected any more."""

    def _wake(self) -> None:  # noqa: B027
        """Ends a wait of the thread early."""

    @abstractmethod
    def _work(self) -> None:
        """Finds results until the object is closed. Runs in the thread."""

"""Queued attempts that workers of another system fetch, and the workers that wait for one.

An attempt stays queued until a worker asks for one of its queue. The next batch claims it, and after the commit the
worker gets it. So a queued attempt is never lost with the server, and nothing is handed over twice.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

from stepwell.local.engine.slots import FairQueue, Place
from stepwell.platform import AttemptId

UNDELIVERED_S = 1.0  # how long a claimed attempt waits for another worker, before it is queued again


class _Request:
    """A worker that waits for an attempt of the first of these queues that has one."""

    __slots__ = ("future", "names")

    def __init__(self, names: tuple[str, ...], future: asyncio.Future[AttemptId]) -> None:
        self.names, self.future = names, future


class WorkerQueues:
    def __init__(self, on_request: Callable[[], None] = lambda: None) -> None:
        """`on_request` is called when a queued attempt can be claimed for a worker."""
        self.on_request = on_request
        self.on_undelivered: Callable[[AttemptId], None] = lambda _: None
        """Called with a claimed attempt that no worker has got for `UNDELIVERED_S`. It must be queued again: only then
        is it certain, also for the next server, that no worker has it."""
        self._queues: dict[str, FairQueue] = {}  # only queues that are not empty
        self._waiting: dict[str, OrderedDict[_Request, None]] = {}  # by queue; only queues that workers ask for
        self._held: dict[AttemptId, tuple[_Request, str]] = {}  # about to be claimed, with the queue
        self._undelivered: dict[str, deque[AttemptId]] = {}  # claimed, but the worker has gone
        self._is_closed = False

    # --- workers ---------------------------------------------------------------------------------------------------

    def ask(self, names: Sequence[str]) -> asyncio.Future[AttemptId]:
        """A claimed attempt of the first of these queues that has one. Cancel the future to stop waiting."""
        future: asyncio.Future[AttemptId] = asyncio.get_running_loop().create_future()
        request = _Request(tuple(dict.fromkeys(names)), future)
        for name in request.names:
            if undelivered := self._undelivered.get(name):
                future.set_result(undelivered.popleft())
                return future
        self._wait(request)
        future.add_done_callback(lambda _: self._forget(request))
        if self.can_take:
            self.on_request()
        return future

    def give_back(self, name: str, attempt_id: AttemptId) -> None:
        """Hands an attempt to another worker of the queue: the one that it was claimed for did not get it."""
        request = next((item for item in self._waiting.get(name, ()) if not item.future.done()), None)
        if request is None:
            self._undelivered.setdefault(name, deque()).append(attempt_id)
            asyncio.get_running_loop().call_later(UNDELIVERED_S, self._expire, name, attempt_id)
        else:
            self._forget(request)
            request.future.set_result(attempt_id)

    def _expire(self, name: str, attempt_id: AttemptId) -> None:
        if self.ended(name, attempt_id):
            self.on_undelivered(attempt_id)

    def take_undelivered(self) -> list[AttemptId]:
        """Removes and returns the claimed attempts that no worker has got."""
        undelivered = [attempt_id for attempts in self._undelivered.values() for attempt_id in attempts]
        self._undelivered.clear()
        return undelivered

    def sizes(self) -> dict[str, int]:
        """How many attempts wait in each queue that is not empty."""
        return {name: len(queue) for name, queue in self._queues.items()}

    # --- the executor ----------------------------------------------------------------------------------------------

    def queue(self, name: str, place: Place, attempt_id: AttemptId) -> None:
        """Queues an attempt; twice is harmless."""
        if attempt_id not in self._held:
            self._queues.setdefault(name, FairQueue()).add(place, attempt_id)

    @property
    def can_take(self) -> bool:
        """Whether a worker waits for an attempt that is queued."""
        return bool(self._queues) and not self._is_closed and any(name in self._waiting for name in self._queues)

    def take_queued(self, most: int) -> list[AttemptId]:
        """Removes and returns queued attempts that workers wait for, at most `most`. They are about to be claimed."""
        taken: list[AttemptId] = []
        for name in () if self._is_closed else list(self._queues):
            while name in self._queues and (waiting := self._waiting.get(name)) and len(taken) < most:
                taken.append(self._take(next(iter(waiting))))
        return taken

    def _take(self, request: _Request) -> AttemptId:
        name = next(name for name in request.names if name in self._queues)
        queue = self._queues[name]
        attempt_id = queue.pop()
        if not queue:
            del self._queues[name]
        self._forget(request)
        self._held[attempt_id] = request, name
        return attempt_id

    def hand_over(self, attempt_id: AttemptId) -> None:
        """The attempt is claimed and committed: the worker gets it."""
        request, name = self._held.pop(attempt_id)
        if request.future.done():
            self.give_back(name, attempt_id)
        else:
            request.future.set_result(attempt_id)

    def release(self, attempt_id: AttemptId) -> None:
        """The attempt was not claimed: the worker waits on."""
        if (held := self._held.pop(attempt_id, None)) is not None:
            self._wait_again(held[0])

    def ended(self, name: str, attempt_id: AttemptId) -> bool:
        """The attempt has ended: no worker gets it any more. Returns whether no worker has got it."""
        undelivered = self._undelivered.get(name, ())
        if attempt_id not in undelivered:
            return False
        undelivered.remove(attempt_id)  # type: ignore[union-attr]
        return True

    def reset(self) -> None:
        """Forgets what is queued, because it is read from the store again."""
        self._queues.clear()
        for request, _ in self._held.values():
            self._wait_again(request)
        self._held.clear()

    def close(self) -> None:
        """Claims no more attempts: they stay queued."""
        self._is_closed = True

    # --- requests --------------------------------------------------------------------------------------------------

    def _wait(self, request: _Request) -> None:
        for name in request.names:
            self._waiting.setdefault(name, OrderedDict())[request] = None

    def _wait_again(self, request: _Request) -> None:
        if not request.future.done():
            self._wait(request)

    def _forget(self, request: _Request) -> None:
        for name in request.names:
            waiting = self._waiting.get(name)
            if waiting is not None and request in waiting:
                del waiting[request]
                if not waiting:
                    del self._waiting[name]

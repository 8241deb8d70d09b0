"""Results in Redis, which publishes each result on a channel with the name of the key.

Source: `celery.backends.redis`; https://docs.celeryq.dev/en/stable/userguide/configuration.html#redis-backend-settings
A result that was stored before its channel was subscribed is found by reading the key after the subscription.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from stepwell.local.celery.outcomes import decode
from stepwell.local.celery.redis_client import redis_client
from stepwell.local.celery.waiting import Found, Results

PREFIX = "celery-task-meta-"
_AT_ONCE = 500
_LOOK_AGAIN_S = 30.0  # a published result may be lost with a connection whose end was not noticed
_LONGEST_PAUSE_S = 5.0


class RedisResults(Results):
    def __init__(self, address: str) -> None:
        super().__init__("results")
        self._address = address
        self._changes: deque[tuple[str, bool]] = deque()  # ids, and whether they are expected
        self._wakes, self._wake_end = socket.socketpair()
        self._wakes.setblocking(False)
        self._wake_end.setblocking(False)
        self._is_woken = False
        self._ids: set[str] = set()  # of the thread: what is subscribed
        self._unread: list[str] = []  # of the thread: subscribed, and the key is not read yet

    # --- on the event loop's thread --------------------------------------------------------------------------------

    def _expected(self, task_id: str) -> None:
        self._change(task_id, True)

    def _forgotten(self, task_id: str) -> None:
        self._change(task_id, False)

    def _change(self, task_id: str, is_expected: bool) -> None:
        self._changes.append((task_id, is_expected))
        self._wake()

    def _wake(self) -> None:
        if not self._is_woken:
            self._is_woken = True
            with suppress(OSError):
                self._wake_end.send(b"\0")

    # --- in the thread ---------------------------------------------------------------------------------------------

    def _work(self) -> None:
        pause = 0.1
        while not self._is_closed:
            client = None
            try:
                client = redis_client(self._address)
                self._watch(client, time.monotonic())
                pause = 0.1
            except Exception as error:
                self._failed(error, self._address)
                self._sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
            finally:
                if client is not None:
                    with suppress(Exception):
                        client.close()
        self._wakes.close()
        self._wake_end.close()

    def _watch(self, client: Any, began: float) -> None:
        """Reads results until the object is closed. Raises if the connection breaks."""
        pubsub = client.pubsub()
        looked = began
        try:
            if self._ids:
                _in_pieces(pubsub.subscribe, self._ids)
            while not self._is_closed:
                self._apply_changes(pubsub)
                found = self._published(pubsub)
                if time.monotonic() - looked > _LOOK_AGAIN_S:
                    looked, self._unread = time.monotonic(), list(self._ids)
                found += self._stored(client)
                self._succeeded()
                self._deliver(found)
                self._wait_for_any(pubsub)
        finally:
            with suppress(Exception):
                pubsub.close()

    def _apply_changes(self, pubsub: Any) -> None:
        self._is_woken = False
        added, gone = dict[str, None](), dict[str, None]()
        while self._changes:
            task_id, is_expected = self._changes.popleft()
            if is_expected:
                added[task_id] = None
            elif task_id in added:
                del added[task_id]
            else:
                gone[task_id] = None
        gone = {task_id: None for task_id in gone if task_id in self._ids}
        self._ids.difference_update(gone)
        self._ids.update(added)
        if gone:
            _in_pieces(pubsub.unsubscribe, gone)
        if added:
            _in_pieces(pubsub.subscribe, added)

    def _published(self, pubsub: Any) -> list[Found]:
        found: list[Found] = []
        if not pubsub.subscribed:
            return found
        while (message := pubsub.get_message(timeout=0)) is not None:
            task_id = message["channel"].decode("utf-8", "replace").removeprefix(PREFIX)
            if message["type"] == "message":
                found.append((task_id, decode(message["data"])))
            elif message["type"] == "subscribe":
                self._unread.append(task_id)
        return found

    def _stored(self, client: Any) -> list[Found]:
        unread, self._unread = self._unread, []
        found: list[Found] = []
        for ids in _pieces([task_id for task_id in unread if task_id in self._ids]):
            texts = client.mget([PREFIX + task_id for task_id in ids])
            found += [(task_id, decode(text)) for task_id, text in zip(ids, texts, strict=True) if text]
        return found

    def _wait_for_any(self, pubsub: Any) -> None:
        """Waits for a message, a change, or at most one second."""
        if self._changes:
            return
        connection = getattr(pubsub.connection, "_sock", None)  # as Celery does: redis-py has no public name for it
        with selectors.DefaultSelector() as selector:
            selector.register(self._wakes, selectors.EVENT_READ)
            if connection is not None:
                selector.register(connection, selectors.EVENT_READ)
            selector.select(1.0)
        with suppress(BlockingIOError):
            self._wakes.recv(4096)

    def _sleep(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while not self._is_closed and time.monotonic() < ends:
            time.sleep(0.05)


def _in_pieces(command: Any, task_ids: Iterable[str]) -> None:
    for ids in _pieces(task_ids):
        command(*(PREFIX + task_id for task_id in ids))


def _pieces(task_ids: Iterable[str]) -> Iterable[Sequence[str]]:
    left = iter(list(task_ids))
    while ids := list(islice(left, _AT_ONCE)):
        yield ids

"""Results that workers with the backend rpc:// send to a queue of this server.

Source: https://docs.celeryq.dev/en/stable/userguide/configuration.html#rpc-backend-settings, and `celery.backends.rpc`.
The queue is durable and has the same name after a restart. A reply is acknowledged some time after it was handed over,
when the outcome is in the database; until then the broker keeps it.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from typing import Any

from stepwell.extras import load
from stepwell.local.celery.connections import connect, declare_replies
from stepwell.local.celery.outcomes import decode, has_ended
from stepwell.local.celery.waiting import Results

_WAIT_S = 0.5
_SETTLE_S = 0.1
_ACKNOWLEDGED_AFTER_S = 5.0  # an outcome is in the database within milliseconds
_NOBODY_WAITS_S = 60.0  # after a restart, attempts ask for their results again
_LONGEST_PAUSE_S = 5.0


class RpcResults(Results):
    def __init__(self, address: str, name: str) -> None:
        super().__init__("replies")
        self._address, self._name = address, name
        self._forgot: deque[str] = deque()
        self._held: dict[str, tuple[Any, float]] = {}  # of the thread: replies not acknowledged, and until when
        self._asked: deque[str] = deque()
        self._settled = 0.0  # of the thread: when replies were acknowledged last

    def _expected(self, task_id: str) -> None:
        self._asked.append(task_id)

    def _forgotten(self, task_id: str) -> None:
        self._forgot.append(task_id)

    def _work(self) -> None:
        pause = 0.1
        while not self._is_closed:
            try:
                self._consume()
                pause = 0.1
            except Exception as error:
                self._held.clear()
                self._failed(error, self._address)
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _consume(self) -> None:
        """Receives replies until the object is closed. Raises if the connection breaks."""
        load("kombu")
        from kombu import Consumer

        own = {f"{key}_key": f"{self._name}.{key}" for key in ("unacked", "unacked_index", "unacked_mutex")}
        redis_options = {**own, "visibility_timeout": 20} if self._address.startswith("redis") else {}
        connection = connect(self._address, **redis_options)
        try:
            channel = connection.channel()
            replies = declare_replies(channel, self._name)
            consumer = Consumer(
                channel, [replies], accept=None, on_message=self._received, auto_declare=False, prefetch_count=1000
            )
            with consumer:
                self._succeeded()
                while not self._is_closed:
                    with suppress(TimeoutError):
                        connection.drain_events(timeout=_WAIT_S)
                    self._settle()
        finally:
            with suppress(Exception):
                connection.release()

    def _received(self, message: Any) -> None:
        body = message.body
        meta = decode(body if message.content_type == "application/json" else b"")
        task_id = str(message.properties.get("correlation_id") or meta.get("task_id"))
        if not has_ended(meta):
            message.ack()
            return
        if task_id in self._held:  # delivered again
            self._held.pop(task_id)[0].ack()
        self._held[task_id] = message, time.monotonic() + _NOBODY_WAITS_S
        self._deliver([(task_id, meta)])

    def _settle(self) -> None:
        """Acknowledges replies whose outcome is in the database, and those that were never asked for."""
        now = time.monotonic()
        if now - self._settled < _SETTLE_S:
            return
        self._settled = now
        while self._forgot:
            task_id = self._forgot.popleft()
            if task_id in self._held:
                self._held[task_id] = self._held[task_id][0], now + _ACKNOWLEDGED_AFTER_S
        while self._asked:
            task_id = self._asked.popleft()
            if task_id in self._held:
                message = self._held[task_id][0]
                self._deliver([(task_id, decode(message.body))])
        for task_id in [task_id for task_id, (_, until) in self._held.items() if until <= now]:
            message, _ = self._held.pop(task_id)
            message.ack()

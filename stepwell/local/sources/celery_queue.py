"""Reads the queue of a Celery app, as a worker does: each task that a client calls is a record.

A message is acknowledged when its event is accepted. A task with an ETA is held until then, as a worker holds it.
https://docs.celeryq.dev/en/stable/userguide/calling.html#eta-and-countdown
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from stepwell.core.sources.places import Place
from stepwell.core.sources.records import Record
from stepwell.local.celery.publisher import connect, ensure_queue
from stepwell.local.celery.received import BadMessage, Call, call_of, task_call
from stepwell.local.sources.reader import CannotSeek, Lag, Polled, ReaderSettings

_PREFETCH = 1000
_MOST_HELD = 10_000  # tasks with an ETA in memory
_NEXT_S = 0.005  # how long to wait for a further message
_HEADERS = ("lang", "task", "id", "root_id", "parent_id", "group", "origin", "retries", "eta", "expires")
_NO_SEEK = "a queue of Celery keeps no messages, so it cannot be read again"


@dataclass(frozen=True, slots=True)
class CeleryToken:
    """What to acknowledge, and what callers wait for. `calls`: by record; `expired`: no event is made of these."""

    messages: list[Any]
    calls: dict[str, Call] = field(default_factory=dict)
    expired: list[Call] = field(default_factory=list)


class CeleryReader:
    """Implements `Reader`."""

    def __init__(self, settings: ReaderSettings) -> None:
        fields = settings.settings
        self._broker, self._queue = fields["broker"], fields.get("queue", "celery")
        self._connection: Any = None
        self._consumer: Any = None
        self._arrived: deque[Any] = deque()
        self._held: list[tuple[int, int, Any]] = []  # by ETA, with a number that makes them comparable
        self._numbers = itertools.count()

    def open(self) -> None:
        from kombu import Consumer

        self._connection = connect(self._broker)
        queue = ensure_queue(self._connection, self._queue)
        self._consumer = Consumer(
            self._connection.channel(), [queue], on_message=self._receive, auto_declare=False, accept=None
        )
        self._consumer.qos(prefetch_count=_PREFETCH)
        self._consumer.consume()

    def poll(self, most: int, wait_s: float) -> Polled:
        ends = time.monotonic() + wait_s
        self._drain(most, self._wait(wait_s))
        while not self._arrived and not self._is_due() and time.monotonic() < ends:
            self._drain(most, self._wait(ends - time.monotonic()))
        token, records = CeleryToken([]), list[Record]()
        now = time.time_ns() // 1_000_000
        while self._is_due() and len(token.messages) < most:
            self._add(heapq.heappop(self._held)[2], now, token, records)
        while self._arrived and len(token.messages) < most:
            self._add(self._arrived.popleft(), now, token, records)
        return Polled(records, token if token.messages else None)

    def _receive(self, message: Any) -> None:
        self._arrived.append(message)

    def _drain(self, most: int, wait_s: float) -> None:
        """Receives messages: waits for the first one, and takes those that follow at once."""
        with suppress(TimeoutError):
            while len(self._arrived) < most:
                self._connection.drain_events(timeout=max(wait_s, _NEXT_S))
                wait_s = 0.0

    def _wait(self, wait_s: float) -> float:
        """How long to wait for messages: at most until a held task is due."""
        if not self._held:
            return wait_s
        return max(0.0, min(wait_s, self._held[0][0] / 1000 - time.time()))

    def _is_due(self) -> bool:
        return bool(self._held) and self._held[0][0] <= time.time() * 1000

    def _add(self, message: Any, now: int, token: CeleryToken, records: list[Record]) -> None:
        """Makes a record of a message, or holds it."""
        headers, properties, body = message.headers or {}, message.properties or {}, _bytes(message.body)
        call = call_of(headers, properties, body)
        try:
            task = task_call(headers, properties, message.content_type, body)
            if task.eta is not None and task.eta > now:
                if len(self._held) >= _MOST_HELD:
                    raise BadMessage(f"more than {_MOST_HELD:,} tasks wait for their ETA")
                heapq.heappush(self._held, (task.eta, next(self._numbers), message))
                self._consumer.qos(prefetch_count=_PREFETCH + len(self._held))
                return
            token.messages.append(message)
            if task.expires is not None and task.expires <= now:
                token.expired.append(task.call)
                return
            record = self._record(task.call.task_id, task.body(), headers, task.retries)
        except BadMessage as reason:
            token.messages.append(message)
            record = self._record(call.task_id if call else _digest(body), body, headers, 0, str(reason))
        records.append(record)
        if call is not None:
            token.calls[record.id] = call

    def _record(self, task_id: str, body: bytes, headers: dict[str, Any], retries: int, problem: str = "") -> Record:
        """The record of a task. A task that was sent again by its own `retry` is another record."""
        known = {name: str(headers[name]) for name in _HEADERS if headers.get(name) is not None}
        name = f"celery/{task_id[:200]}/{retries}" if retries else f"celery/{task_id[:200]}"
        return Record(name, body, known, {"queue": self._queue, "key": task_id}, None, problem)

    def commit(self, polled: Polled) -> None:
        if isinstance(polled.token, CeleryToken):
            for message in polled.token.messages:
                message.ack()

    def lag(self) -> Lag:
        """The messages in the queue, if the broker counts them."""
        with self._connection.channel() as channel:
            count = channel.queue_declare(self._queue, passive=True).message_count
        return Lag(int(count))

    def position(self) -> Any:
        raise CannotSeek(_NO_SEEK)

    def is_before(self, record: Record, position: Any) -> bool:
        return False

    def seek(self, place: Place) -> None:
        raise CannotSeek(_NO_SEEK)

    def close(self) -> None:
        """Closes the connection; the broker delivers again what is not acknowledged."""
        if self._connection is not None:
            self._connection.release()


def _bytes(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else bytes(body or b"")


def _digest(body: bytes) -> str:
    """A name for a message that has none."""
    import hashlib

    return hashlib.sha256(body).hexdigest()[:32]


def waiting_calls(polled: Polled, records: Sequence[Record]) -> dict[str, Call]:
    """The calls of these records whose callers want a result, by record."""
    token = polled.token
    if not isinstance(token, CeleryToken):
        return {}
    wanted = {record.id for record in records}
    return {name: call for name, call in token.calls.items() if name in wanted and call.is_awaited}

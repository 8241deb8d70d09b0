"""Reads the queue of a Celery app, as a worker does: each task that a client calls is a record.

A message is acknowledged when its event is accepted. A task with an ETA is held until then, as a worker holds it.
https://docs.celeryq.dev/en/stable/userguide/calling.html#eta-and-countdown
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stepwell.core.sources.records import Record
from stepwell.local.celery.queues import Message, task_queue
from stepwell.local.celery.received import BadMessage, Call, call_of, task_call
from stepwell.local.celery.revocations import Revocations
from stepwell.local.sources.lag import Lag
from stepwell.local.sources.reader import Polled, ReaderSettings, ReadOnce

_MOST_HELD = 10_000  # tasks with an ETA in memory
_MOST_REVOKED = 50_000  # revoked tasks that a reader remembers, as many as a worker of Celery
_HEADERS = ("lang", "task", "id", "root_id", "parent_id", "group", "origin", "retries", "eta", "expires")


@dataclass(frozen=True, slots=True)
class CeleryToken:
    """What to acknowledge, and what callers wait for. `calls`: by record. `dropped`: no event is made of these, for the
    reason. `revoked`: the ids of tasks whose runs must be cancelled."""

    messages: list[Message] = field(default_factory=list)
    calls: dict[str, Call] = field(default_factory=dict)
    dropped: list[tuple[Call, str]] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)


class CeleryReader(ReadOnce):
    """Implements `Reader`."""

    no_places = "a queue of Celery keeps no messages, so it cannot be read again"

    def __init__(self, settings: ReaderSettings) -> None:
        fields = settings.settings
        self._name = fields.get("queue", "celery")
        self._queue = task_queue(fields["broker"], self._name, settings.identity)
        self._broker, self._identity = fields["broker"], settings.identity
        self._held: list[tuple[int, int, Message]] = []  # by ETA, with a number that makes them comparable
        self._numbers = itertools.count()
        self._revoked: OrderedDict[str, None] = OrderedDict()
        self._revocations: Revocations | None = None

    def open(self) -> None:
        self._queue.open()
        self._revocations = Revocations(self._broker, f"stepwell-{self._identity}")

    def poll(self, most: int, wait_s: float) -> Polled:
        token, records = CeleryToken(revoked=self._newly_revoked()), list[Record]()
        if self._held:
            wait_s = max(0.0, min(wait_s, self._held[0][0] / 1000 - time.time()))
        messages = self._queue.receive(most, wait_s)
        now = time.time_ns() // 1_000_000
        while self._held and self._held[0][0] <= now and len(messages) < most:
            messages.append(heapq.heappop(self._held)[2])
        for message in messages:
            self._add(message, now, token, records)
        return Polled(records, token if token.messages or token.revoked else None)

    def _newly_revoked(self) -> list[str]:
        """Takes what callers have revoked. Held tasks are due at once then, so that their callers get the reason."""
        ids = [] if self._revocations is None else self._revocations.take()
        if ids:
            self._revoked.update(dict.fromkeys(ids))
            while len(self._revoked) > _MOST_REVOKED:
                self._revoked.popitem(last=False)
            self._held = [
                (0 if message.headers.get("id") in self._revoked else eta, number, message)
                for eta, number, message in self._held
            ]
            heapq.heapify(self._held)
        return ids

    def _add(self, message: Message, now: int, token: CeleryToken, records: list[Record]) -> None:
        """Makes a record of a message, or holds it."""
        headers, body = message.headers, message.body
        call = call_of(headers, message.properties, body)
        try:
            task = task_call(headers, message.properties, message.content_type, body)
            is_revoked = task.call.task_id in self._revoked
            if task.eta is not None and task.eta > now and not is_revoked:
                self._hold(task.eta, message)
                return
            token.messages.append(message)
            if is_revoked or (task.expires is not None and task.expires <= now):
                token.dropped.append((task.call, "revoked" if is_revoked else "expired"))
                return
            record = self._record(task.call.task_id, task.body(), headers, task.retries)
        except BadMessage as reason:
            token.messages.append(message)
            name = call.task_id if call else hashlib.sha256(body).hexdigest()[:32]
            record = self._record(name, body, headers, 0, str(reason))
        records.append(record)
        if call is not None:
            token.calls[record.id] = call

    def _hold(self, eta: int, message: Message) -> None:
        if len(self._held) >= _MOST_HELD:
            raise BadMessage(f"more than {_MOST_HELD:,} tasks wait for their ETA")
        heapq.heappush(self._held, (eta, next(self._numbers), message))
        self._queue.hold(len(self._held))

    def _record(self, task_id: str, body: bytes, headers: Mapping[str, Any], retries: int, problem: str = "") -> Record:
        """The record of a task. A task that was sent again by its own `retry` is another record."""
        known = {name: str(headers[name]) for name in _HEADERS if headers.get(name) is not None}
        name = f"{record_id(task_id)}/{retries}" if retries else record_id(task_id)
        return Record(name, body, known, {"queue": self._name, "key": task_id}, None, problem)

    def commit(self, polled: Polled) -> None:
        if isinstance(polled.token, CeleryToken):
            self._queue.acknowledge(polled.token.messages)

    def lag(self) -> Lag:
        return Lag(self._queue.count())

    def close(self) -> None:
        if self._revocations is not None:
            self._revocations.close()
        self._queue.close()


def record_id(task_id: str) -> str:
    """The id of the record of a task."""
    return f"celery/{task_id[:200]}"


def waiting_calls(polled: Polled, records: Sequence[Record]) -> dict[str, Call]:
    """The calls of these records whose callers want a result, by record."""
    token = polled.token
    if not isinstance(token, CeleryToken):
        return {}
    wanted = {record.id for record in records}
    return {name: call for name, call in token.calls.items() if name in wanted and call.is_awaited}

"""Reads a queue of RabbitMQ, by AMQP 0-9-1.

A message is acknowledged after the event is durable. What is not acknowledged when the connection ends is delivered
again. https://www.rabbitmq.com/docs/confirms
"""

from __future__ import annotations

import socket
from collections import deque
from typing import Any
from uuid import uuid4

import kombu

from stepwell.core.sources.records import Record, header_text
from stepwell.local.sources.lag import Lag
from stepwell.local.sources.reader import Polled, ReaderSettings, ReadOnce

_TIMEOUT_S = 10
_HEARTBEAT_S = 30
_PREFETCH = 1000  # messages that the broker sends before it waits for acknowledgements


class RabbitmqReader(ReadOnce):
    """Implements `Reader`."""

    no_places = "RabbitMQ deletes messages that were read; publish them again"

    def __init__(self, settings: ReaderSettings) -> None:
        fields = settings.settings
        self._url, self._queue = fields["url"], fields["queue"]
        self._prefetch: int = fields.get("prefetch", _PREFETCH)
        self._waiting: deque[Any] = deque()
        self._connection: Any = None
        self._channel: Any = None

    def open(self) -> None:
        self._connection = kombu.Connection(self._url, connect_timeout=_TIMEOUT_S, heartbeat=_HEARTBEAT_S)
        self._connection.connect()
        self._channel = self._connection.channel()
        self._channel.queue_declare(self._queue, passive=True)  # a missing queue is an error that names it
        self._channel.basic_qos(0, self._prefetch, False)
        self._channel.basic_consume(self._queue, callback=self._waiting.append)

    def poll(self, most: int, wait_s: float) -> Polled:
        self._connection.heartbeat_check()
        while len(self._waiting) < most:
            try:
                self._connection.drain_events(timeout=0.001 if self._waiting else wait_s or 0.001)
            except (TimeoutError, socket.timeout):  # noqa: UP041 - kombu may raise either
                break
        messages = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        return Polled([self._record(message) for message in messages], messages[-1].delivery_tag if messages else None)

    def _record(self, message: Any) -> Record:
        properties = dict(message.properties)
        own = properties.pop("application_headers", None) or {}
        headers = {name.lower(): header_text(value) if isinstance(value, str | bytes) else str(value)
                   for name, value in own.items()}  # fmt: skip
        if kind := properties.get("content_type"):
            headers.setdefault("content-type", kind)
        at = properties.get("timestamp")
        at = at * 1000 if isinstance(at, int) else None
        info = message.delivery_info
        attributes = {
            "exchange": info.get("exchange"),
            "routing_key": info.get("routing_key"),
            "redelivered": info.get("redelivered"),
            **{name: value for name, value in properties.items() if isinstance(value, str | int)},
        }
        place = {"queue": self._queue, "attributes": attributes, "key": info.get("routing_key"), "timestamp": at}
        # Without a message_id, nothing tells a message that is delivered again from an equal one.
        text = properties.get("message_id") or f"unnamed/{uuid4().hex}"
        body = message.body
        return Record(
            f"amqp/{self._queue}/{text}", body if isinstance(body, bytes) else str(body).encode(), headers, place, at
        )

    def commit(self, polled: Polled) -> None:
        if polled.token is not None:
            self._channel.basic_ack(polled.token, multiple=True)

    def lag(self) -> Lag:
        _, count, _ = self._channel.queue_declare(self._queue, passive=True)
        return Lag(count + len(self._waiting))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

"""Sends task messages: to Redis many at once, as kombu stores them; to other brokers by kombu, one at a time."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from stepwell.extras import load
from stepwell.local.celery.addresses import is_redis
from stepwell.local.celery.connections import app_of, connect, declare_replies, ensure_queue
from stepwell.local.celery.messages import CONTENT_ENCODING, CONTENT_TYPE, TaskMessage
from stepwell.local.celery.redis_client import redis_client

if TYPE_CHECKING:
    from kombu import Connection, Producer

_AT_ONCE = 100


class Sender(Protocol):
    """A connection that is made when it is needed. All methods but `close` raise the errors of the broker's client."""

    @property
    def is_connected(self) -> bool: ...

    def send(self, messages: Sequence[TaskMessage]) -> int:
        """Sends at least the first of these messages. Returns how many the broker has."""

    def close(self) -> None: ...


def sender(address: str, reply_to: str, origin: str) -> Sender:
    return (RedisSender if is_redis(address) else KombuSender)(address, reply_to, origin)


class RedisSender:
    """Appends to the lists from which kombu reads."""

    def __init__(self, address: str, reply_to: str, origin: str) -> None:
        self._address, self._reply_to, self._origin = address, reply_to, origin
        self._client: Any = None

    @property
    def is_connected(self) -> bool:
        return self._client is not None

    def send(self, messages: Sequence[TaskMessage]) -> int:
        if self._client is None:
            self._client = redis_client(self._address)
        some = messages[:_AT_ONCE]
        with self._client.pipeline() as pipe:  # a transaction: all or none
            for message in some:
                pipe.lpush(message.queue, self._envelope(message))
            pipe.execute()
        return len(some)

    def _envelope(self, message: TaskMessage) -> bytes:
        """The message as `kombu.transport.virtual` stores it."""
        properties = {
            "correlation_id": message.id,
            "reply_to": self._reply_to,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": message.queue},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        }
        fields = {
            "body": base64.b64encode(message.body()).decode(),
            "content-encoding": CONTENT_ENCODING,
            "content-type": CONTENT_TYPE,
            "headers": message.headers(self._origin),
            "properties": properties,
        }
        return orjson.dumps(fields)

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                client.close()


class KombuSender:
    """Publishes to the default exchange, which leads to the queue of a name, however the app declared it."""

    def __init__(self, address: str, reply_to: str, origin: str) -> None:
        self._address, self._reply_to, self._origin = address, reply_to, origin
        self._connection: Connection | None = None
        self._producer: Producer | None = None
        self._declared: set[str] = set()

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    def send(self, messages: Sequence[TaskMessage]) -> int:
        message, producer = messages[0], self._connected()
        if message.queue not in self._declared:
            ensure_queue(producer.connection, message.queue)
            self._declared.add(message.queue)
        if self._reply_to and self._reply_to not in self._declared:
            declare_replies(producer.channel, self._reply_to)
            self._declared.add(self._reply_to)
        producer.publish(
            message.body(),
            exchange="",
            routing_key=message.queue,
            mandatory=True,  # an error if the queue was deleted: it is declared again by the next try
            headers=message.headers(self._origin),
            correlation_id=message.id,
            reply_to=self._reply_to,
            content_type=CONTENT_TYPE,
            content_encoding=CONTENT_ENCODING,
            delivery_mode=2,
        )
        return 1

    def revoke(self, task_ids: Sequence[str]) -> bool:
        """Asks all workers to drop or to stop tasks. Returns False if the broker has no remote control."""
        connection = self._connected().connection
        if "fanout" not in connection.transport.implements.exchange_type:
            return False
        app_of(self._address).control.revoke(list(task_ids), terminate=True, connection=connection)
        return True

    def _connected(self) -> Producer:
        if self._producer is None:
            load("kombu")
            from kombu import Producer

            self._connection = connect(self._address)
            self._producer = Producer(self._connection.channel())
        return self._producer

    def close(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        self._declared.clear()
        if connection is not None:
            with suppress(Exception):
                connection.release()

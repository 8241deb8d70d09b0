"""Connections to brokers by kombu, the queues that are made there, and the app that reads and writes JSON only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from stepwell.extras import load

if TYPE_CHECKING:
    from kombu import Connection, Queue

CONNECT_S = 5.0
_ANSWER_S = 30.0
_UNUSED_REPLIES_S = 7 * 24 * 3600  # after which RabbitMQ deletes the queue of replies


def connect(address: str, **transport_options: Any) -> Connection:
    """A connection to a broker, made now. Raises the errors of kombu and of the broker's client."""
    load("kombu")
    from kombu import Connection

    scheme = address.partition("://")[0]
    if scheme in ("redis", "rediss", "sentinel"):
        transport_options |= {"socket_connect_timeout": CONNECT_S}
    elif scheme in ("amqp", "amqps", "pyamqp"):
        transport_options |= {"confirm_publish": True, "read_timeout": _ANSWER_S, "write_timeout": _ANSWER_S}
    connection = Connection(address, connect_timeout=CONNECT_S, transport_options=transport_options)
    connection.connect()
    return connection


def ensure_queue(connection: Connection, name: str) -> Queue:
    """The queue. It is created as Celery does, unless it exists: the app may have given it other arguments."""
    load("kombu")
    from kombu import Exchange, Queue

    queue = Queue(name, Exchange(name, type="direct"), routing_key=name)
    if connection.transport.driver_type != "amqp" or not _exists(connection, queue):
        with _channel(connection) as channel:
            queue(channel).declare()
    return queue


def declare_replies(channel: Any, name: str) -> Any:
    """Creates the durable queue of replies, and returns it, bound to the channel."""
    load("kombu")
    from kombu import Queue

    replies = Queue(name, durable=True, auto_delete=False, expires=_UNUSED_REPLIES_S)(channel)
    replies.queue_declare()
    return replies


def app_of(broker: str, backend: str | None = None) -> Any:
    """A Celery app that reads and writes JSON only."""
    load("celery")
    from celery import Celery

    app = Celery(broker=broker, backend=backend, set_as_current=False, fixups=[])
    app.conf.update(
        accept_content=["json"], result_accept_content=["json"], task_serializer="json", result_serializer="json"
    )
    return app


def _exists(connection: Connection, queue: Any) -> bool:
    try:
        with _channel(connection) as channel:
            queue(channel).queue_declare(passive=True)
    except connection.channel_errors:
        return False
    return True


@contextmanager
def _channel(connection: Connection) -> Iterator[Any]:
    channel = connection.channel()
    try:
        yield channel
    finally:
        with suppress(Exception):
            channel.close()

"""Sends task messages to a broker, in a thread of its own that keeps one connection.

A message is sent again if the connection broke: messages with the same id have the same result.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stepwell.local.celery.addresses import shown, without_secrets
from stepwell.local.celery.messages import CONTENT_ENCODING, CONTENT_TYPE, TaskMessage

if TYPE_CHECKING:
    from kombu import Connection, Producer, Queue

CONNECT_S = 5.0
_ANSWER_S = 30.0
_MOST_AT_ONCE = 500
_UNUSED_REPLIES_S = 7 * 24 * 3600  # after which RabbitMQ deletes the queue of replies
log = logging.getLogger("stepwell.celery")


class BrokerGone(Exception):
    """The broker could not be reached, or refused a message. The message contains no secret."""


@dataclass(frozen=True, slots=True)
class _Sending:
    message: TaskMessage
    sent: asyncio.Future[None]


class Publisher:
    """Publishes and revokes tasks. `reply_to`: the queue for results, if the backend is rpc://."""

    def __init__(self, address: str, reply_to: str, origin: str) -> None:
        self._address, self._reply_to, self._origin = address, reply_to, origin
        self._loop = asyncio.get_running_loop()
        self._inbox: queue.SimpleQueue[_Sending | str | None] = queue.SimpleQueue()
        self._connection: Connection | None = None
        self._producer: Producer | None = None
        self._declared: set[str] = set()
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name="stepwell-celery-publisher", daemon=True)
        self._thread.start()

    # --- on the event loop's thread --------------------------------------------------------------------------------

    async def publish(self, message: TaskMessage) -> None:
        """Returns when the broker has the message. Raises BrokerGone."""
        sent: asyncio.Future[None] = self._loop.create_future()
        self._inbox.put(_Sending(message, sent))
        await sent

    def revoke(self, task_id: str) -> None:
        """Asks all workers to drop or to stop the task. Returns at once."""
        self._inbox.put(task_id)

    async def close(self) -> None:
        """Closes the connection. Tasks that are not sent yet are dropped: the next start of the server sends them."""
        self._is_closing = True
        self._inbox.put(None)
        await asyncio.to_thread(self._thread.join, CONNECT_S + 1)

    def _settle(self, sendings: Sequence[_Sending], error: BrokerGone | None) -> None:
        for sending in sendings:
            if sending.sent.done():
                continue
            if error is None:
                sending.sent.set_result(None)
            else:
                sending.sent.set_exception(error)

    # --- in the thread ---------------------------------------------------------------------------------------------

    def _work(self) -> None:
        is_open = True
        while is_open:
            sendings, revoked = list[_Sending](), list[str]()
            for item in self._received():
                if item is None:
                    is_open = False
                elif isinstance(item, str):
                    revoked.append(item)
                else:
                    sendings.append(item)
            if sendings:
                self._report(*self._send_all(sendings))
            if revoked:
                self._revoke_all(revoked)
        self._disconnect()

    def _received(self) -> Iterator[_Sending | str | None]:
        yield self._inbox.get()
        with suppress(queue.Empty):
            for _ in range(_MOST_AT_ONCE):
                yield self._inbox.get_nowait()

    def _report(self, sent: Sequence[_Sending], unsent: Sequence[_Sending], error: BrokerGone | None) -> None:
        with suppress(RuntimeError):  # the event loop is closed
            self._loop.call_soon_threadsafe(self._settle, sent, None)
            if unsent:
                self._loop.call_soon_threadsafe(self._settle, unsent, error)

    def _send_all(
        self, sendings: Sequence[_Sending]
    ) -> tuple[Sequence[_Sending], Sequence[_Sending], BrokerGone | None]:
        """What was sent, what was not, and why. A kept connection may be broken, so there is a second try."""
        done = 0
        for is_last in (self._connection is None, True):
            try:
                while done < len(sendings) and not self._is_closing:
                    self._send(sendings[done].message)
                    done += 1
                return sendings[:done], (), None
            except Exception as error:
                self._disconnect()
                if is_last:
                    return sendings[:done], sendings[done:], self._gone(error)
        raise AssertionError("the last try returns")

    def _send(self, message: TaskMessage) -> None:
        producer = self._connected()
        self._declare(message.queue)
        if self._reply_to and self._reply_to not in self._declared:
            declare_replies(producer.channel, self._reply_to)
            self._declared.add(self._reply_to)
        producer.publish(
            message.body(),
            exchange="",  # leads to the queue of this name, however the app declared it
            routing_key=message.queue,
            headers=message.headers(self._origin),
            correlation_id=message.id,
            reply_to=self._reply_to,
            content_type=CONTENT_TYPE,
            content_encoding=CONTENT_ENCODING,
            delivery_mode=2,
        )

    def _connected(self) -> Producer:
        if self._producer is None:
            from kombu import Producer

            self._connection = connect(self._address)
            self._producer = Producer(self._connection.channel())
        return self._producer

    def _declare(self, name: str) -> None:
        if name not in self._declared:
            assert self._connection is not None
            ensure_queue(self._connection, name)
            self._declared.add(name)

    def _revoke_all(self, task_ids: Sequence[str]) -> None:
        try:
            self._connected()
            assert self._connection is not None
            if "fanout" not in self._connection.transport.implements.exchange_type:
                log.warning("%s has no remote control: tasks that are cancelled run to the end", shown(self._address))
                return
            app = app_of(self._address)
            app.control.revoke(list(task_ids), terminate=True, connection=self._connection)
        except Exception as error:
            self._disconnect()
            log.warning("%s tasks could not be revoked: %s", len(task_ids), self._gone(error))

    def _gone(self, error: Exception) -> BrokerGone:
        reason = without_secrets(str(error) or type(error).__name__, self._address)
        return BrokerGone(f"the broker {shown(self._address)} does not accept the task: {reason}")

    def _disconnect(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        self._declared.clear()
        if connection is not None:
            with suppress(Exception):
                connection.release()


def connect(address: str, **transport_options: Any) -> Connection:
    """A connection to a broker, made now. Raises the errors of kombu and of the broker's client."""
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
    from kombu import Exchange, Queue

    queue = Queue(name, Exchange(name, type="direct"), routing_key=name)
    if connection.transport.driver_type != "amqp" or not _exists(connection, queue):
        with _channel(connection) as channel:
            queue(channel).declare()
    return queue


def declare_replies(channel: Any, name: str) -> Any:
    """Creates the durable queue of replies, and returns it, bound to the channel."""
    from kombu import Queue

    replies = Queue(name, durable=True, auto_delete=False, expires=_UNUSED_REPLIES_S)(channel)
    replies.queue_declare()
    return replies


def app_of(broker: str, backend: str | None = None) -> Any:
    """A Celery app that reads and writes JSON only."""
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

"""Queues of task messages: Redis by its own commands, so that no message is lost; other brokers by kombu."""

from __future__ import annotations

import base64
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from stepwell.extras import load
from stepwell.local.celery.addresses import is_redis
from stepwell.local.celery.connections import connect, ensure_queue
from stepwell.local.celery.redis_client import redis_client

_PREFETCH = 1000
_NEXT_S = 0.005  # how long to wait for a further message
_PRIORITIES = ("\x06\x169", "\x06\x166", "\x06\x163", "")  # of lists, as kombu names them; the last one is the default
_TAKE = """
local taken = {}
for _, list in ipairs({KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]}) do
  while #taken < tonumber(ARGV[1]) do
    local message = redis.call('RPOP', list)
    if not message then break end
    local tag = redis.call('INCR', KEYS[7])
    redis.call('HSET', KEYS[6], tag, message)
    taken[#taken + 1] = {tostring(tag), message}
  end
end
return taken
"""


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it was sent. `tag` identifies it for `acknowledge`."""

    headers: Mapping[str, Any]
    properties: Mapping[str, Any]
    content_type: str
    body: bytes
    tag: Any


class TaskQueue(Protocol):
    def open(self) -> None: ...

    def receive(self, most: int, wait_s: float) -> list[Message]:
        """The next messages, at most `most`; none if none come within `wait_s` seconds."""

    def acknowledge(self, messages: Sequence[Message]) -> None: ...

    def count(self) -> int:
        """The number of messages that were not received yet."""

    def hold(self, count: int) -> None:
        """This many messages are held for later, and others must come meanwhile."""

    def close(self) -> None:
        """Closes the connection; the broker delivers again what is not acknowledged."""


def task_queue(broker: str, name: str, identity: str) -> TaskQueue:
    """The queue with this name. `identity` distinguishes this reader, and stays equal after a restart."""
    return RedisQueue(broker, name, identity) if is_redis(broker) else KombuQueue(broker, name)


class RedisQueue:
    """A queue in Redis, where kombu keeps messages in a list for each priority.

    kombu removes a message before it notes it, so a process that is killed between loses it. Here, both is one step.
    Messages that were taken are in a hash of the reader, which it reads first after a restart.
    """

    def __init__(self, broker: str, name: str, identity: str) -> None:
        self._client = redis_client(broker)
        self._lists = [name + priority for priority in _PRIORITIES]
        prefix = f"stepwell.{identity}.{name}"
        self._inbox, self._taken, self._tags = f"{prefix}.inbox", f"{prefix}.taken", f"{prefix}.tags"
        self._again: deque[tuple[bytes, bytes]] = deque()
        self._take = self._client.register_script(_TAKE)

    def open(self) -> None:
        self._again.extend(self._client.hgetall(self._taken).items())

    def receive(self, most: int, wait_s: float) -> list[Message]:
        if self._again:
            return [self._message(*self._again.popleft()) for _ in range(min(most, len(self._again)))]
        found = self._taken_now(most)
        if not found and wait_s > 0 and self._client.blmove(self._lists[-1], self._inbox, wait_s, "RIGHT", "LEFT"):
            found = self._taken_now(most)
        return found

    def _taken_now(self, most: int) -> list[Message]:
        keys = [self._inbox, *self._lists, self._taken, self._tags]
        return [self._message(tag, text) for tag, text in self._take(keys=keys, args=[most])]

    @staticmethod
    def _message(tag: bytes, text: bytes) -> Message:
        try:
            fields = orjson.loads(text)
            properties, body = fields["properties"], fields["body"]
            is_encoded = properties.get("body_encoding") == "base64"
            body = base64.b64decode(body) if is_encoded else body.encode()
            return Message(fields.get("headers") or {}, properties, str(fields.get("content-type") or ""), body, tag)
        except (ValueError, KeyError, TypeError, AttributeError):
            return Message({}, {}, "text/plain", text, tag)

    def acknowledge(self, messages: Sequence[Message]) -> None:
        if messages:
            self._client.hdel(self._taken, *(message.tag for message in messages))

    def count(self) -> int:
        return sum(self._client.llen(name) for name in self._lists)

    def hold(self, count: int) -> None:
        pass

    def close(self) -> None:
        """Puts back what is not acknowledged, so that other readers get it."""
        with suppress(Exception):
            if left := self._client.hvals(self._taken):
                with self._client.pipeline() as pipe:  # a transaction
                    pipe.rpush(self._lists[-1], *left)
                    pipe.delete(self._taken)
                    pipe.execute()
        self._client.close()


class KombuQueue:
    """A queue of any broker that kombu knows."""

    def __init__(self, broker: str, name: str) -> None:
        self._broker, self._name = broker, name
        self._connection: Any = None
        self._consumer: Any = None
        self._arrived: list[Message] = []

    def open(self) -> None:
        load("kombu")
        from kombu import Consumer

        self._connection = connect(self._broker)
        queue = ensure_queue(self._connection, self._name)
        self._consumer = Consumer(
            self._connection.channel(), [queue], on_message=self._receive, auto_declare=False, accept=None
        )
        self.hold(0)
        self._consumer.consume()

    def receive(self, most: int, wait_s: float) -> list[Message]:
        ends = time.monotonic() + wait_s
        with suppress(TimeoutError):
            while len(self._arrived) < most:
                left = _NEXT_S if self._arrived else ends - time.monotonic()
                self._connection.drain_events(timeout=max(left, _NEXT_S))
        found, self._arrived = self._arrived, []
        return found

    def _receive(self, message: Any) -> None:
        body = message.body
        body = body.encode() if isinstance(body, str) else bytes(body or b"")
        self._arrived.append(
            Message(message.headers or {}, message.properties or {}, message.content_type or "", body, message)
        )

    def acknowledge(self, messages: Sequence[Message]) -> None:
        for message in messages:
            message.tag.ack()

    def count(self) -> int:
        with self._connection.channel() as channel:
            return int(channel.queue_declare(self._name, passive=True).message_count)

    def hold(self, count: int) -> None:
        self._consumer.qos(prefetch_count=_PREFETCH + count)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.release()

"""A small stand-in for Google Pub/Sub, because Google's emulator cannot be installed from a package registry.

It serves the subscriber's methods that a source calls, by the generated messages of Google's own client library.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty
from google.pubsub_v1 import types


class PubsubHost:
    """One subscription. Messages stay until they are acknowledged; `redeliver` delivers them again."""

    def __init__(self, path: str) -> None:
        self.path, self.address = path, ""
        self.messages: list[tuple[types.PubsubMessage, bool]] = []  # with whether it was acknowledged
        self._delivered: set[int] = set()
        self._changed = threading.Condition()

    def publish(self, data: bytes, **attributes: str) -> str:
        with self._changed:
            name = str(len(self.messages) + 1)
            message = types.PubsubMessage(
                data=data, attributes=attributes, message_id=name, publish_time=datetime.now(UTC)
            )
            self.messages.append((message, False))
            self._changed.notify_all()
            return name

    def redeliver(self) -> None:
        """What happens when the deadline is over."""
        with self._changed:
            self._delivered.clear()
            self._changed.notify_all()

    @property
    def unacknowledged(self) -> int:
        return sum(not done for _, done in self.messages)

    def get(self, request: Any, context: Any) -> Any:
        if request.subscription != self.path:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Resource not found (resource={request.subscription}).")
        return types.Subscription(name=self.path)

    def pull(self, request: Any, context: Any) -> Any:
        with self._changed:
            self._changed.wait_for(self._ready, 0.3)
            found = self._ready()[: request.max_messages]
            self._delivered.update(found)
            received = [types.ReceivedMessage(ack_id=str(n), message=self.messages[n][0]) for n in found]
        return types.PullResponse(received_messages=received)

    def _ready(self) -> list[int]:
        return [n for n, (_, done) in enumerate(self.messages) if not done and n not in self._delivered]

    def acknowledge(self, request: Any, context: Any) -> Any:
        with self._changed:
            for name in request.ack_ids:
                self.messages[int(name)] = (self.messages[int(name)][0], True)
        return Empty()

    def seek(self, request: Any, context: Any) -> Any:
        with self._changed:
            self.messages = [(m, done and m.publish_time < request.time) for m, done in self.messages]
            self._delivered.clear()
            self._changed.notify_all()
        return types.SeekResponse()


@contextmanager
def pubsub_host(path: str) -> Iterator[PubsubHost]:
    host = PubsubHost(path)
    server = grpc.server(ThreadPoolExecutor(4))
    methods = {
        "GetSubscription": (host.get, types.GetSubscriptionRequest, types.Subscription.serialize),
        "Pull": (host.pull, types.PullRequest, types.PullResponse.serialize),
        "Acknowledge": (host.acknowledge, types.AcknowledgeRequest, Empty.SerializeToString),
        "Seek": (host.seek, types.SeekRequest, types.SeekResponse.serialize),
    }
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(call, request.deserialize, answer)
        for name, (call, request, answer) in methods.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("google.pubsub.v1.Subscriber", handlers),))
    host.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield host
    finally:
        server.stop(None)

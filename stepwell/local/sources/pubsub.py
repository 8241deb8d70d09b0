"""Pulls the messages of a subscription of Google Pub/Sub.

What is not acknowledged within the subscription's deadline is delivered again.
https://cloud.google.com/pubsub/docs/pull ; https://cloud.google.com/pubsub/docs/replay-overview
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import grpc
from google.api_core.exceptions import DeadlineExceeded
from google.pubsub_v1 import SubscriberClient
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from stepwell.core.sources.places import Place
from stepwell.core.sources.records import Record
from stepwell.local.sources.lag import Lag
from stepwell.local.sources.reader import CannotSeek, Polled, ReaderSettings

_PULL_S = 5.0
_TIMEOUT_S = 10.0
_LONGEST_S = 31 * 86_400  # how long a topic can keep messages


class PubsubReader:
    """Implements `Reader`."""

    def __init__(self, settings: ReaderSettings) -> None:
        fields = settings.settings
        name: str = fields["subscription"]
        self._path = name if name.startswith("projects/") else f"projects/{fields['project']}/subscriptions/{name}"
        self._name, self._endpoint = self._path.rpartition("/")[2], fields.get("endpoint")
        self._client: Any = None

    def open(self) -> None:
        if self._endpoint:
            self._client = SubscriberClient(
                transport=SubscriberGrpcTransport(channel=grpc.insecure_channel(self._endpoint))
            )
        else:
            self._client = SubscriberClient()
        self._client.get_subscription(subscription=self._path, timeout=_TIMEOUT_S, retry=None)

    def poll(self, most: int, wait_s: float) -> Polled:
        if not wait_s:  # a pull that is given up at once could receive messages, which then come late
            return Polled()
        try:
            answer = self._client.pull(subscription=self._path, max_messages=most, timeout=_PULL_S, retry=None)
        except DeadlineExceeded:
            return Polled()
        received = list(answer.received_messages)
        return Polled([self._record(item.message) for item in received], [item.ack_id for item in received] or None)

    def _record(self, message: Any) -> Record:
        at = round(message.publish_time.timestamp() * 1000)
        attributes = dict(message.attributes)
        headers = {name.lower(): value for name, value in attributes.items()}
        key = message.ordering_key or None
        place = {"subscription": self._name, "attributes": attributes, "key": key, "timestamp": at}
        return Record(f"pubsub/{self._path}/{message.message_id}", bytes(message.data), headers, place, at)

    def commit(self, polled: Polled) -> None:
        if polled.token:
            self._client.acknowledge(subscription=self._path, ack_ids=polled.token, timeout=_TIMEOUT_S)

    def lag(self) -> Lag:
        return Lag()  # only Google's monitoring knows it

    def position(self) -> Any:
        return time.time_ns() // 1_000_000

    def is_before(self, record: Record, position: Any) -> bool:
        return record.at is not None and record.at < position

    def seek(self, place: Place) -> None:
        if place.position:
            raise CannotSeek(f"{place.position!r} is not a time; a subscription is replayed from a time, such as 2h")
        seconds = time.time() - _LONGEST_S if place.time is None else place.time / 1000
        moment = datetime.fromtimestamp(seconds, UTC)
        self._client.seek(request={"subscription": self._path, "time": moment}, timeout=_TIMEOUT_S)

    def close(self) -> None:
        if self._client is not None:
            self._client.transport.close()

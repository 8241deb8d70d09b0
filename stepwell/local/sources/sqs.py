"""Reads a queue of SQS.

A message stays in the queue, invisible, until it is deleted. It is delivered again after the visibility timeout.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html
"""

from __future__ import annotations

from typing import Any

import boto3
from botocore.config import Config

from stepwell.core.sources.records import Record, header_text
from stepwell.local.sources.lag import Lag
from stepwell.local.sources.reader import Polled, ReaderSettings, ReadOnce

_AT_ONCE = 10  # messages of one request
_LONG_POLL_S = 5  # each request costs, so an empty queue is asked rarely


class SqsReader(ReadOnce):
    """Implements `Reader`."""

    no_places = "SQS deletes messages that were read; send them again, for example by a redrive of a dead-letter queue"

    def __init__(self, settings: ReaderSettings) -> None:
        fields = settings.settings
        self._queue: str = fields["queue"]
        self._where = {"region_name": fields.get("region"), "endpoint_url": fields.get("endpoint")}
        self._url, self._name = "", self._queue.rpartition("/")[2]
        self._client: Any = None

    def open(self) -> None:
        config = Config(connect_timeout=5, read_timeout=_LONG_POLL_S + 10, retries={"total_max_attempts": 2})
        session = boto3.session.Session()  # the default session is not safe in threads
        self._client = session.client("sqs", config=config, **self._where)
        is_url = self._queue.startswith(("http://", "https://"))
        self._url = self._queue if is_url else self._client.get_queue_url(QueueName=self._queue)["QueueUrl"]
        self.lag()

    def poll(self, most: int, wait_s: float) -> Polled:
        messages: list[Any] = []
        wait = _LONG_POLL_S if wait_s else 0
        while len(messages) < most:
            answer = self._client.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=min(_AT_ONCE, most - len(messages)),
                WaitTimeSeconds=wait,
                MessageSystemAttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
            found = answer.get("Messages", [])
            messages += found
            if len(found) < _AT_ONCE:
                break
            wait = 0
        return Polled([self._record(message) for message in messages], [m["ReceiptHandle"] for m in messages] or None)

    def _record(self, message: Any) -> Record:
        system = message.get("Attributes", {})
        headers = {
            name.lower(): value.get("StringValue") or header_text(value.get("BinaryValue"))
            for name, value in message.get("MessageAttributes", {}).items()
        }
        at = int(system["SentTimestamp"]) if "SentTimestamp" in system else None
        place = {"queue": self._name, "attributes": system, "key": system.get("MessageGroupId"), "timestamp": at}
        return Record(f"sqs/{self._name}/{message['MessageId']}", message["Body"].encode(), headers, place, at)

    def commit(self, polled: Polled) -> None:
        handles = polled.token or []
        for start in range(0, len(handles), _AT_ONCE):
            entries = [
                {"Id": str(number), "ReceiptHandle": handle}
                for number, handle in enumerate(handles[start : start + _AT_ONCE])
            ]
            failed = self._client.delete_message_batch(QueueUrl=self._url, Entries=entries).get("Failed")
            if failed:
                raise ConnectionError(f"messages could not be deleted: {failed[0].get('Message') or failed[0]['Code']}")

    def lag(self) -> Lag:
        names = ["ApproximateNumberOfMessages"]
        found = self._client.get_queue_attributes(QueueUrl=self._url, AttributeNames=names)["Attributes"]
        return Lag(int(found[names[0]]))

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

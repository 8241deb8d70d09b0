"""The emulator's SQS queues, as Lambda's pollers use them: batches are received in the form that a function gets.

moto is called directly, not by requests. This is a hundred times as fast, and pollers are not under test.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from unittest.mock import patch

from moto.sqs import models
from moto.sqs.exceptions import ReceiptHandleIsInvalid

from stepwell.testing.account.lambda_events import Json, sqs_event, sqs_record

_START_AGAIN = '{"stepwell":"again"'


class Queues:
    def __init__(self, account: str, region: str, lock: threading.RLock) -> None:  # type: ignore[valid-type, unused-ignore]
        self._account, self._region, self._lock = account, region, lock

    def receive(self, url: str, most: int = 10) -> Json:
        """Receives the next batch, as a Lambda event; `Records` is empty if there is nothing to receive now."""
        name = _name(url)
        with self._lock:
            queue = self._backend.get_queue(name)
            messages = self._backend.receive_message(name, most, 0, queue.visibility_timeout, ["All"])
            return sqs_event([_record(message, queue) for message in messages])

    def finish(self, url: str, event: Json, answer: Json | None) -> list[Json]:
        """Deletes the batch except for `batchItemFailures`, as Lambda does. Returns the failed records.

        Failed messages stay invisible until their timeout ends: the queue's, or the one that the function has set.
        """
        records = event["Records"]
        failed = [item["itemIdentifier"] for item in (answer or {}).get("batchItemFailures") or ()]
        known = {record["messageId"] for record in records}
        if not known.issuperset(failed):  # Lambda then treats the whole batch as failed
            failed = list(known)
        self.delete(url, [record for record in records if record["messageId"] not in failed])
        return [record for record in records if record["messageId"] in failed]

    def delete(self, url: str, records: Iterable[Json]) -> None:
        with self._lock:
            for record in records:
                self._backend.delete_message(_name(url), record["receiptHandle"])

    def release(self, url: str, records: Iterable[Json]) -> None:
        """Makes received messages visible again, if they still exist."""
        with self._lock:
            for record in records:
                with suppress(ReceiptHandleIsInvalid):
                    self._backend.change_message_visibility(_name(url), record["receiptHandle"], 0)

    # --- faults ----------------------------------------------------------------------------------------------------

    def unread(self, url: str) -> list[tuple[str, str]]:
        """The ids and bodies of the messages that can be received, and never were."""
        with self._lock:
            messages = self._backend.get_queue(_name(url)).messages
            return [(message.id, message.body) for message in messages if message.approximate_receive_count == 0]

    def send_again(self, url: str, body: str) -> str:
        """Sends a new message with the same body, without delay. Returns the message id."""
        with self._lock:
            new_id: str = self._backend.send_message(_name(url), body).id
            return new_id

    def reorder(self, url: str, key: Callable[[], float]) -> None:
        with self._lock:
            self._backend.get_queue(_name(url))._messages.sort(key=lambda _: key())

    def put_back(self, url: str, record: Json, delay_ms: int, *, forgets_receives: bool) -> None:
        """Adds a deleted message again, as SQS does when a server has missed the deletion."""
        receives = 0 if forgets_receives else int(record["attributes"]["ApproximateReceiveCount"])
        with self._lock:
            message: Any = models.Message(record["messageId"], record["body"])
            message.sent_timestamp = int(record["attributes"]["SentTimestamp"])
            message.approximate_receive_count = receives
            message.delayed_until = _now_ms() + delay_ms
            self._backend.get_queue(_name(url))._messages.append(message)

    def hurry(self, url: str) -> int:
        """Makes messages that wait only for a retry receivable now. Returns how many there were.

        These are failed messages, and starts of steps that were refused.
        """
        now, hurried = _now_ms(), 0
        with self._lock:
            for message in self._backend.get_queue(_name(url))._messages:
                has_failed = message.approximate_receive_count > 0 and message.visible_at > now
                if has_failed or (message.delayed_until > now and message.body.startswith(_START_AGAIN)):
                    message.visible_at = message.delayed_until = now
                    hurried += 1
        return hurried

    # --- time --------------------------------------------------------------------------------------------------------

    def next_delayed(self, *urls: str) -> int | None:
        """When the next message becomes visible that is not visible now, in ms since the epoch; None: there is none."""
        now = _now_ms()
        with self._lock:
            messages = [message for url in urls for message in self._backend.get_queue(_name(url))._messages]
            times = [max(message.delayed_until, message.visible_at) for message in messages]
        return min((int(at) for at in times if at > now), default=None)

    def send(self, arn: str, body: str) -> None:
        """Puts a message on the queue with this ARN, as a service of AWS does. Raises moto's errors."""
        _, _, _, region, account, name = arn.split(":")
        with self._lock:
            models.sqs_backends[account][region].send_message(name, body)

    @property
    def _backend(self) -> Any:
        return models.sqs_backends[self._account][self._region]


def _name(url: str) -> str:
    return url.rpartition("/")[2]


def _record(message: Any, queue: Any) -> Json:
    attributes = {
        "ApproximateReceiveCount": str(message.approximate_receive_count),
        "SentTimestamp": str(message.sent_timestamp),
        "SenderId": message.sender_id,
        "ApproximateFirstReceiveTimestamp": str(message.approximate_first_receive_timestamp),
    }
    if queue.fifo_queue:
        attributes["MessageGroupId"] = message.group_id
        attributes["MessageDeduplicationId"] = message.deduplication_id
        attributes["SequenceNumber"] = message.sequence_number or ""
    return sqs_record(
        message.body,
        queue.queue_arn,
        message_id=message.id,
        receipt_handle=message.receipt_handle,
        attributes=attributes,
        message_attributes={name: _attribute(value) for name, value in message.message_attributes.items()},
    )


def _attribute(value: Json) -> Json:
    values = {
        "stringValue": value.get("StringValue") or value.get("string_value"),
        "binaryValue": value.get("BinaryValue") or value.get("binary_value"),
    }
    found = {name: item for name, item in values.items() if item is not None}
    data_type = value.get("DataType") or value.get("data_type")
    return {**found, "stringListValues": [], "binaryListValues": [], "dataType": data_type}


# --- time ------------------------------------------------------------------------------------------------------------


@contextmanager
def exact_delays() -> Iterator[None]:
    """Makes SQS exact to the millisecond.

    - moto calculates with floats that can be a millisecond short.
    - A message that is made visible is visible at once. In moto it is visible later, which never comes with this clock.
    - SQS delays by whole seconds, so Stepwell rounds up. Tests state timers in milliseconds, so a delayed message of
      Stepwell becomes visible when it is `due`, and not up to a second later.
    """
    with ExitStack() as stack:
        stack.enter_context(patch.object(models, "unix_time_millis", _now_ms))
        stack.enter_context(patch.object(models.Message, "visible", property(_is_visible)))
        stack.enter_context(patch.object(models.Queue, "add_message", _adds_when_due(models.Queue.add_message)))
        yield


def _now_ms(_: object = None) -> int:
    return time.time_ns() // 1_000_000


def _is_visible(message: Any) -> bool:
    return bool(_now_ms() >= message.visible_at)


def _adds_when_due(add: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    def add_message(queue: Any, message: Any) -> None:
        if message.delayed_until:
            due = _due(message.body)
            if due is not None:
                message.delayed_until = min(due, message.delayed_until)
        add(queue, message)

    return add_message


def _due(body: str) -> int | None:
    """When a delayed message of the engine is due, in ms since the epoch; None if it is not such a message."""
    try:
        content = json.loads(body)
    except ValueError:
        return None
    due = content.get("due") if isinstance(content, dict) and "stepwell" in content else None
    return due if isinstance(due, int) else None

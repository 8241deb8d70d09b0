"""SQS of the emulator, as Lambda's pollers see it: batches are received as Lambda hands them to a function.

moto is asked in process, not by requests: pollers are no part of what is tested, and this is a hundred times as fast.
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
        """The next batch, as the event of a Lambda; without records if there is nothing to receive now."""
        name = _name(url)
        with self._lock:
            queue = self._backend.get_queue(name)
            messages = self._backend.receive_message(name, most, 0, queue.visibility_timeout, ["All"])
            return sqs_event([_record(message, queue) for message in messages])

    def finish(self, url: str, event: Json, answer: Json | None) -> list[Json]:
        """What Lambda does with a batch by the function's answer: deletes it, but for `batchItemFailures`, which are
        returned. Those stay invisible until their timeout has passed: the queue's, or what the function has set."""
        records = event["Records"]
        failed = [item["itemIdentifier"] for item in (answer or {}).get("batchItemFailures") or ()]
        known = {record["messageId"] for record in records}
        if not known.issuperset(failed):  # Lambda takes this for a failure of the whole batch
            failed = list(known)
        self.delete(url, [record for record in records if record["messageId"] not in failed])
        return [record for record in records if record["messageId"] in failed]

    def delete(self, url: str, records: Iterable[Json]) -> None:
        with self._lock:
            for record in records:
                self._backend.delete_message(_name(url), record["receiptHandle"])

    def release(self, url: str, records: Iterable[Json]) -> None:
        """Make received messages visible again, as far as they are still there."""
        with self._lock:
            for record in records:
                with suppress(ReceiptHandleIsInvalid):
                    self._backend.change_message_visibility(_name(url), record["receiptHandle"], 0)

    # --- what an unkind account does -------------------------------------------------------------------------------

    def unread(self, url: str) -> list[tuple[str, str]]:
        """The ids and bodies of messages that can be received, and never were."""
        with self._lock:
            messages = self._backend.get_queue(_name(url)).messages
            return [(message.id, message.body) for message in messages if message.approximate_receive_count == 0]

    def send_again(self, url: str, body: str) -> str:
        """The id of a new message with the same body, which can be received at once."""
        with self._lock:
            new_id: str = self._backend.send_message(_name(url), body).id
            return new_id

    def reorder(self, url: str, key: Callable[[], float]) -> None:
        with self._lock:
            self._backend.get_queue(_name(url))._messages.sort(key=lambda _: key())

    def put_back(self, url: str, record: Json, delay_ms: int, *, forgets_receives: bool) -> None:
        """Have a message that was deleted once more, from a server of SQS that was not told."""
        receives = 0 if forgets_receives else int(record["attributes"]["ApproximateReceiveCount"])
        with self._lock:
            message: Any = models.Message(record["messageId"], record["body"])
            message.sent_timestamp = int(record["attributes"]["SentTimestamp"])
            message.approximate_receive_count = receives
            message.delayed_until = _now_ms() + delay_ms
            self._backend.get_queue(_name(url))._messages.append(message)

    def hurry(self, url: str) -> int:
        """Let what waits only to be tried again be tried now: messages that failed, and starts that were refused;
        how many there were."""
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
        """When the next message that cannot be received now can be, in ms since the epoch; None: there is none."""
        now = _now_ms()
        with self._lock:
            messages = [message for url in urls for message in self._backend.get_queue(_name(url))._messages]
            times = [max(message.delayed_until, message.visible_at) for message in messages]
        return min((int(at) for at in times if at > now), default=None)

    def send(self, arn: str, body: str) -> None:
        """Put a message on the queue of this ARN, as a service of AWS does. Raises moto's errors."""
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
    kept = {
        "stringValue": value.get("StringValue") or value.get("string_value"),
        "binaryValue": value.get("BinaryValue") or value.get("binary_value"),
    }
    found = {name: item for name, item in kept.items() if item is not None}
    data_type = value.get("DataType") or value.get("data_type")
    return {**found, "stringListValues": [], "binaryListValues": [], "dataType": data_type}


# --- time ------------------------------------------------------------------------------------------------------------


@contextmanager
def exact_delays() -> Iterator[None]:
    """Time in SQS, to the millisecond.

    - moto reckons in floats that can be a millisecond short.
    - A message that is made visible is so at once; to moto only later, which never comes while time stands still.
    - SQS delays by whole seconds, so Stepwell rounds up; but what a test says of a timer is said in milliseconds. So a
      delayed message of Stepwell's own becomes visible when it is `due`, and not up to a second later.
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
    """Of a message by which the engine reminds itself of something; None: it is none."""
    try:
        content = json.loads(body)
    except ValueError:
        return None
    due = content.get("due") if isinstance(content, dict) and "stepwell" in content else None
    return due if isinstance(due, int) else None

"""Sets when a failed message is delivered again: after about a second, and later after each further failure.

By default a failed message stays hidden until the visibility timeout of the queue has passed, which is six times the
timeout of the Lambda. Lambda does not shorten it, and with partial batch responses it does not slow down polling
(https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html). So the handler sets the visibility
timeout of the failed messages. This is only an optimisation: if the request fails or the Lambda dies first, the message
is delivered again after the timeout of the queue.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

from stepwell.aws.clients import client
from stepwell.aws.observability import count
from stepwell.aws.queues.outbox import MAX_BATCH
from stepwell.aws.resources import Resources

log = logging.getLogger("stepwell.aws")

Handler = Callable[[Any, Any], Any]
Record = dict[str, Any]
LATEST_S = 360  # the longest delay; the visibility timeout of the queues is at least as long
MAX_RECEIVES = 50
"""Deliveries before a message becomes a dead letter. The last one is at least two hours after the first, so that an
outage of two hours creates no dead letters."""
STUCK_AFTER = 10  # deliveries: four to nine minutes after the first
STUCK = "MessagesStuck"  # a metric with an alarm: SQS leaves such messages out of ApproximateAgeOfOldestMessage
_LEAST_MS = 5000  # remaining time that a Lambda needs to change visibility timeouts


def redelivery_delay_s(message_id: str, receives: int) -> int:
    """The seconds until a message is delivered again after it failed for the `receives`-th time (from 1).

    1, 2, 4, ... up to `LATEST_S`, reduced by up to half, by a hash of the message id and the delivery. So messages that
    failed together are not delivered together again.
    """
    longest = min(LATEST_S, 1 << min(receives - 1, 30))
    digest = hashlib.blake2b(f"{message_id}/{receives}".encode(), digest_size=8).digest()
    return math.ceil(longest * (1 - int.from_bytes(digest) / 2**65))


def redelivered_soon(handler: Handler) -> Handler:
    """A queue handler that shortens the visibility timeout of failed messages: those in the answer's
    `batchItemFailures`, or all if the handler raises."""

    @functools.wraps(handler)
    def wrapper(event: Any, context: Any) -> Any:
        records: Sequence[Record] = event["Records"]
        failed = records
        try:
            answer = handler(event, context)
            names = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
            failed = [record for record in records if record["messageId"] in names]
        finally:
            if failed and context.get_remaining_time_in_millis() >= _LEAST_MS:
                _schedule_redelivery(failed)
        return answer

    return wrapper


def _schedule_redelivery(records: Sequence[Record]) -> None:
    """Sets when these messages become visible again. Never raises."""
    for start in range(0, len(records), MAX_BATCH):
        try:
            _change_visibility(records[start : start + MAX_BATCH])
        except Exception as error:  # the messages are delivered again anyway
            log.warning("visibility timeout of %s messages not changed: %s", len(records), error)


def _change_visibility(records: Sequence[Record]) -> None:
    entries = []
    for number, record in enumerate(records):
        receives = int(record["attributes"]["ApproximateReceiveCount"])
        if receives >= STUCK_AFTER:
            count(STUCK)
            log.error("message %s failed %s of %s times", record["messageId"], receives, MAX_RECEIVES)
        delay = redelivery_delay_s(record["messageId"], receives)
        entries.append({"Id": str(number), "ReceiptHandle": record["receiptHandle"], "VisibilityTimeout": delay})
    queue = _url(Resources.from_environment(), records[0]["eventSourceARN"])
    answer = client("sqs").change_message_visibility_batch(QueueUrl=queue, Entries=entries)
    for item in answer.get("Failed", ()):
        log.warning("visibility timeout of a message not changed: %s", item["Code"])


def _url(resources: Resources, arn: str) -> str:
    """The URL of one of the two queues."""
    urls = {resources.events_queue_arn: resources.events_queue, resources.outcomes_queue_arn: resources.outcomes_queue}
    return urls[arn]

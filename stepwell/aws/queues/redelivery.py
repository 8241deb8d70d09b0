"""When a message that could not be handled comes again: after a second, and later each time it fails.

Lambda leaves a message that failed in its queue until the queue's visibility timeout has passed, which is six times the
Lambda's own timeout; it changes no message's timeout itself, and with partial batch responses it slows its polling not
either (https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html). So the handler sets the timeout
of the messages that failed. One rule: nothing depends on that. If the request fails, or the Lambda dies before it, the
message comes again after the queue's own timeout.
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
LATEST_S = 360  # the longest delay; the queues' own visibility timeout is no shorter
MAX_RECEIVES = 50
"""Deliveries before a message goes to the dead letters. The last of them comes two hours after the first at the
earliest, so that no outage of two hours sends a message there."""
STUCK_AFTER = 10  # deliveries: four to nine minutes after the first
STUCK = "MessagesStuck"  # a metric, for an alarm: SQS leaves such messages out of ApproximateAgeOfOldestMessage
_LEAST_MS = 5000  # that a Lambda must have left to change timeouts


def redelivery_delay_s(message_id: str, receives: int) -> int:
    """Seconds until a message that failed at its `receives`-th delivery (from 1) comes again.

    1, 2, 4, ... up to `LATEST_S`, less up to half of it by a hash of the message and the delivery: so messages that
    failed together do not come again together.
    """
    longest = min(LATEST_S, 1 << min(receives - 1, 30))
    digest = hashlib.blake2b(f"{message_id}/{receives}".encode(), digest_size=8).digest()
    return math.ceil(longest * (1 - int.from_bytes(digest) / 2**65))


def redelivered_soon(handler: Handler) -> Handler:
    """A handler of a queue whose failed messages come again soon: those that its answer names, or all if it raises."""

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
                _hand_back(failed)
        return answer

    return wrapper


def _hand_back(records: Sequence[Record]) -> None:
    """Set when these messages become visible again. Never raises."""
    for start in range(0, len(records), MAX_BATCH):
        try:
            _change_visibility(records[start : start + MAX_BATCH])
        except Exception as error:  # whatever it is, the messages come again all the same
            log.warning("%s messages come again only after their queue's timeout: %s", len(records), error)


def _change_visibility(records: Sequence[Record]) -> None:
    entries = []
    for number, record in enumerate(records):
        receives = int(record["attributes"]["ApproximateReceiveCount"])
        if receives >= STUCK_AFTER:
            count(STUCK)
            log.error("message %s failed %s times, of %s", record["messageId"], receives, MAX_RECEIVES)
        delay = redelivery_delay_s(record["messageId"], receives)
        entries.append({"Id": str(number), "ReceiptHandle": record["receiptHandle"], "VisibilityTimeout": delay})
    queue = _url(Resources.from_environment(), records[0]["eventSourceARN"])
    answer = client("sqs").change_message_visibility_batch(QueueUrl=queue, Entries=entries)
    for item in answer.get("Failed", ()):
        log.warning("a message comes again only after its queue's timeout: %s", item["Code"])


def _url(resources: Resources, arn: str) -> str:
    """The URL of one of the environment's queues."""
    urls = {resources.events_queue_arn: resources.events_queue, resources.outcomes_queue_arn: resources.outcomes_queue}
    return urls[arn]

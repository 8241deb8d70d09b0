"""Lists and redrives dead letters: messages that failed too often, and events that EventBridge could not deliver.

The dead-letter queue of a queue is named in the redrive policy of that queue. SQS cannot list messages without
receiving them. So messages are received, which hides them from other readers for up to `_HELD_S`, and are then made
visible again.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-dead-letter-queues.html
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from stepwell.aws.resources import Resources
from stepwell.aws.topology import EVENTS, OUTCOMES, QUEUES

_HELD_S = 60  # a received message becomes visible again after this time at the latest
_AT_ONCE = 10  # most messages in one request to SQS
_EMPTY = 3  # answers in a row without a new message after which a queue counts as empty


class CannotRedrive(Exception):
    """SQS did not move all messages; the error message contains the reason."""


@dataclass(frozen=True, slots=True)
class DeadLetterQueue:
    """A dead-letter queue. `queue`: the name, in `topology`, of the queue from which the messages come; `back_url` and
    `back_arn` are of that queue."""

    queue: str
    url: str
    arn: str
    back_url: str
    back_arn: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message in a dead-letter queue.

    `sent_at`: ms since the epoch. `about`: ids in the message, such as the run and the step. `reason`: why EventBridge
    could not deliver it; None if a Lambda failed to handle it, which the Lambda's log explains.
    """

    queue: str
    id: str
    kind: str
    sent_at: int
    receives: int
    about: dict[str, Any]
    reason: str | None
    message: dict[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of moving a whole queue. The counts are approximate; `total` None: SQS has not counted yet."""

    queue: str
    moved: int
    total: int | None


def queues(sqs: Any, resources: Resources, only: str | None = None) -> list[DeadLetterQueue]:
    """The dead-letter queues of an environment. `only`: the name of one queue, to get only that one."""
    found = []
    for name, url in ((EVENTS, resources.events_queue), (OUTCOMES, resources.outcomes_queue)):
        if only not in (None, name):
            continue
        attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn", "RedrivePolicy"])["Attributes"]
        arn = orjson.loads(attributes["RedrivePolicy"])["deadLetterTargetArn"]
        dead_url = sqs.get_queue_url(QueueName=arn.rpartition(":")[2])["QueueUrl"]
        found.append(DeadLetterQueue(name, dead_url, arn, url, attributes["QueueArn"]))
    assert only is not None or {dead_letter_queue.queue for dead_letter_queue in found} == set(QUEUES)
    return found


def count(sqs: Any, queue: DeadLetterQueue) -> int:
    """The approximate number of messages in a queue, without those that are hidden at the moment."""
    name = "ApproximateNumberOfMessages"
    return int(sqs.get_queue_attributes(QueueUrl=queue.url, AttributeNames=[name])["Attributes"][name])


def peek(sqs: Any, queue: DeadLetterQueue, limit: int) -> list[DeadLetter]:
    """At most `limit` messages, oldest first. They stay in the queue."""
    held: list[DeadLetter] = []
    try:
        for letters in _received(sqs, queue):
            held += letters
            if len(held) >= limit:
                break
    finally:
        _give_back(sqs, queue, held)
    return sorted(held[:limit], key=lambda dead_letter: dead_letter.sent_at)


def redrive_all(
    sqs: Any,
    queue: DeadLetterQueue,
    show: Callable[[Progress], None],
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Moves all messages back to their queue, and returns the approximate number. Raises CannotRedrive.

    SQS moves them, so the move continues if this process ends. The destination must be given, because messages from
    EventBridge have no source queue.
    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_StartMessageMoveTask.html
    """
    sqs.start_message_move_task(SourceArn=queue.arn, DestinationArn=queue.back_arn)
    while True:
        task = sqs.list_message_move_tasks(SourceArn=queue.arn, MaxResults=1)["Results"][0]
        moved = task.get("ApproximateNumberOfMessagesMoved", 0)
        show(Progress(queue.queue, moved, task.get("ApproximateNumberOfMessagesToMove")))
        if task["Status"] == "COMPLETED":
            return int(moved)
        if task["Status"] != "RUNNING":
            why = task.get("FailureReason", "it was stopped")
            raise CannotRedrive(f"SQS moved {moved} dead letters of {queue.queue}, then the move ended: {why}")
        sleep(1)


def redrive_some(sqs: Any, among: Sequence[DeadLetterQueue], ids: Collection[str]) -> list[DeadLetter]:
    """Sends the messages with these ids back to their queues, and returns those that were found.

    Each message is sent before it is deleted, so it may arrive twice but is never lost.
    """
    done: list[DeadLetter] = []
    for queue in among:
        held: list[DeadLetter] = []
        try:
            for letters in _received(sqs, queue):
                held += letters
                for letter in [letter for letter in letters if letter.id in ids]:
                    sqs.send_message(QueueUrl=queue.back_url, MessageBody=letter.message["Body"])
                    sqs.delete_message(QueueUrl=queue.url, ReceiptHandle=letter.message["ReceiptHandle"])
                    held.remove(letter)
                    done.append(letter)
                if len(done) == len(ids):
                    break
        finally:
            _give_back(sqs, queue, held)
    return done


def _received(sqs: Any, queue: DeadLetterQueue) -> Iterator[list[DeadLetter]]:
    """The messages of a queue in groups, each message once, until the queue returns no new ones."""
    received: set[str] = set()
    empty = 0
    while empty < _EMPTY:
        messages = sqs.receive_message(
            QueueUrl=queue.url,
            MaxNumberOfMessages=_AT_ONCE,
            VisibilityTimeout=_HELD_S,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        ).get("Messages", [])
        new = [message for message in messages if message["MessageId"] not in received]
        empty = 0 if new else empty + 1
        received |= {message["MessageId"] for message in new}
        yield [_letter(queue.queue, message) for message in new]


def _give_back(sqs: Any, queue: DeadLetterQueue, letters: Sequence[DeadLetter]) -> None:
    for first in range(0, len(letters), _AT_ONCE):
        entries = [
            {"Id": str(i), "ReceiptHandle": letter.message["ReceiptHandle"], "VisibilityTimeout": 0}
            for i, letter in enumerate(letters[first : first + _AT_ONCE])
        ]
        sqs.change_message_visibility_batch(QueueUrl=queue.url, Entries=entries)


# --- the content of a message ----------------------------------------------------------------------------------------


def _letter(queue: str, message: dict[str, Any]) -> DeadLetter:
    system = message["Attributes"]
    kind, about = _about(message["Body"])
    return DeadLetter(
        queue,
        message["MessageId"],
        kind,
        int(system["SentTimestamp"]),
        int(system["ApproximateReceiveCount"]),
        {name: value for name, value in about.items() if value is not None},
        _reason(message.get("MessageAttributes", {})),
        message,
    )


def _about(text: str) -> tuple[str, dict[str, Any]]:
    """The kind of a message, and the ids in it."""
    try:
        body = orjson.loads(text)
        if "requestPayload" in body:
            payload = body["requestPayload"]
            ctx = (payload["input"] if payload.get("stepwell") == "http" else payload)["ctx"]
            return "outcome", {"run": ctx["run_id"], "step": ctx["step_id"], "attempt": ctx["attempt"]}
        if body.get("detail-type") == "ECS Task State Change":
            return "container", {"task": body["detail"]["taskArn"]}
        if "detail-type" in body:
            detail = body["detail"] if isinstance(body["detail"], dict) else {}
            return "event", {"event": detail.get("name") or body["detail-type"], "id": detail.get("id") or body["id"]}
        names = ("run", "step", "attempt", "function", "event", "at")
        return str(body["stepwell"]), {name: body.get(name) for name in names if not isinstance(body.get(name), dict)}
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return "unreadable", {}


def _reason(attributes: dict[str, Any]) -> str | None:
    """Why EventBridge could not deliver an event, from the attributes of the message; None without such attributes.
    https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-dlq.html
    """
    found = {name: item.get("StringValue", "") for name, item in attributes.items()}
    if "ERROR_CODE" not in found:
        return None
    return ": ".join(filter(None, (found["ERROR_CODE"], found.get("ERROR_MESSAGE"))))

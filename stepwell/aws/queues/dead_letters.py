"""Dead letters: messages that a queue gave up, and events that a rule of EventBridge could not hand over.

Every queue of `topology` names its dead-letter queue itself, in its redrive policy. SQS has no request that only looks:
messages are received, so that nobody else sees them for `_HELD_S`, and given back.
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

_HELD_S = 60  # a message that is looked at comes back at the latest then
_AT_ONCE = 10  # messages that SQS hands over, or takes, in a request
_EMPTY = 3  # answers without a message, one after the other, until a queue counts as empty


class CannotRedrive(Exception):
    """Messages were not moved; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class DeadLetterQueue:
    """`queue`: the name in `topology` of the queue that the messages were for."""

    queue: str
    url: str
    arn: str
    back_url: str
    back_arn: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """`sent_at`: ms since the epoch. `is_of`: the names in it that say what it is about. `reason`: why EventBridge
    could not hand it over; None for what a Lambda could not do, whose log says why."""

    queue: str
    id: str
    kind: str
    sent_at: int
    receives: int
    is_of: dict[str, Any]
    reason: str | None
    message: dict[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Progress:
    """Of the move of a whole queue. SQS counts roughly; `total` None: it has not counted yet."""

    queue: str
    moved: int
    total: int | None


def queues(sqs: Any, resources: Resources, only: str | None = None) -> list[DeadLetterQueue]:
    """The dead-letter queues of an environment, or that of one queue."""
    found = []
    for name, url in ((EVENTS, resources.events_queue), (OUTCOMES, resources.outcomes_queue)):
        if only not in (None, name):
            continue
        about = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn", "RedrivePolicy"])["Attributes"]
        arn = orjson.loads(about["RedrivePolicy"])["deadLetterTargetArn"]
        dead_url = sqs.get_queue_url(QueueName=arn.rpartition(":")[2])["QueueUrl"]
        found.append(DeadLetterQueue(name, dead_url, arn, url, about["QueueArn"]))
    assert only is not None or {dead_letter_queue.queue for dead_letter_queue in found} == set(QUEUES)
    return found


def count(sqs: Any, queue: DeadLetterQueue) -> int:
    """About how many messages wait; those that somebody looks at are not counted."""
    name = "ApproximateNumberOfMessages"
    return int(sqs.get_queue_attributes(QueueUrl=queue.url, AttributeNames=[name])["Attributes"][name])


def look(sqs: Any, queue: DeadLetterQueue, limit: int) -> list[DeadLetter]:
    """At most so many messages, those sent first in front; they stay in the queue."""
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
    """Move all messages to their queue; about how many there were. SQS does it, so it goes on should this end. The
    destination is named: what EventBridge put into the dead letters came from no queue. Raises CannotRedrive.
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
            why = task.get("FailureReason", "somebody stopped it")
            raise CannotRedrive(f"SQS moved {moved} dead letters of {queue.queue}, then the move was over: {why}")
        sleep(1)


def redrive_some(sqs: Any, among: Sequence[DeadLetterQueue], ids: Collection[str]) -> list[DeadLetter]:
    """Send these messages to their queues, each before it is deleted from the dead letters: it may come twice, but is
    never lost. Those that were found."""
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
    """Some at a time, each message once, until the queue has no more, or hands over those that it has handed over
    before."""
    seen: set[str] = set()
    empty = 0
    while empty < _EMPTY:
        messages = sqs.receive_message(
            QueueUrl=queue.url,
            MaxNumberOfMessages=_AT_ONCE,
            VisibilityTimeout=_HELD_S,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        ).get("Messages", [])
        new = [message for message in messages if message["MessageId"] not in seen]
        empty = 0 if new else empty + 1
        seen |= {message["MessageId"] for message in new}
        yield [_letter(queue.queue, message) for message in new]


def _give_back(sqs: Any, queue: DeadLetterQueue, letters: Sequence[DeadLetter]) -> None:
    for first in range(0, len(letters), _AT_ONCE):
        entries = [
            {"Id": str(i), "ReceiptHandle": letter.message["ReceiptHandle"], "VisibilityTimeout": 0}
            for i, letter in enumerate(letters[first : first + _AT_ONCE])
        ]
        sqs.change_message_visibility_batch(QueueUrl=queue.url, Entries=entries)


# --- what a message is -----------------------------------------------------------------------------------------------


def _letter(queue: str, message: dict[str, Any]) -> DeadLetter:
    system = message["Attributes"]
    kind, is_of = _about(message["Body"])
    return DeadLetter(
        queue,
        message["MessageId"],
        kind,
        int(system["SentTimestamp"]),
        int(system["ApproximateReceiveCount"]),
        {name: value for name, value in is_of.items() if value is not None},
        _reason(message.get("MessageAttributes", {})),
        message,
    )


def _about(text: str) -> tuple[str, dict[str, Any]]:
    """What kind of message it is, and the names in it."""
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
    """What EventBridge says of an event that it could not hand over.
    https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-dlq.html
    """
    found = {name: item.get("StringValue", "") for name, item in attributes.items()}
    if "ERROR_CODE" not in found:
        return None
    return ": ".join(filter(None, (found["ERROR_CODE"], found.get("ERROR_MESSAGE"))))

"""Queues: a failed message is redelivered within seconds, and goes to the dead letters only after hours."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from rehearsal.real.account import Account, Json
from rehearsal.real.checks import Failed, check
from stepwell.aws.queues.redelivery import LATEST_S, MAX_RECEIVES

_TRIES = 3  # deliveries to wait for; the third follows three seconds after the first
_POLLERS = 12  # more than Lambda has for an idle queue, so that one of these gets the message in the end
_POLL_S = 20
_LONGEST_WINDOW_S = 300  # the maximum of `batching_window`, which is added to the queues' visibility timeout


def _queues(account: Account) -> dict[str, str]:
    return {"events": account.resources.events_queue, "outcomes": account.resources.outcomes_queue}


def _attributes(account: Account, url: str) -> Json:
    found: Json = account.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    return found


@check(f"Messages are redelivered within {LATEST_S} s, and {MAX_RECEIVES} times", emulated=True)
def queues_redeliver_for_hours(account: Account) -> str:
    for name, url in _queues(account).items():
        fields = _attributes(account, url)
        receives = int(json.loads(fields.get("RedrivePolicy", "{}")).get("maxReceiveCount", 0))
        longest = LATEST_S + _LONGEST_WINDOW_S
        if not LATEST_S <= int(fields["VisibilityTimeout"]) <= longest or receives != MAX_RECEIVES:
            raise Failed(
                f"the queue {name} has a visibility timeout of {fields['VisibilityTimeout']} s and {receives}"
                " deliveries; deploy again"
            )
    return f"{fields['VisibilityTimeout']} s and {MAX_RECEIVES} deliveries on both queues"


@check("A message that cannot be handled is redelivered within seconds", seconds=120, usd=0.001)
def a_failed_message_is_redelivered(account: Account) -> str:
    """Sends an unreadable message, and removes it from the queue at the end."""
    url, began = account.resources.outcomes_queue, time.time()
    text = f"a check of {account.env} sent this: {secrets.token_hex(8)}"
    message_id = account.client("sqs").send_message(QueueUrl=url, MessageBody=text)["MessageId"]
    account.cleanup.callback(_take_out, account, url, text)
    times = account.until(
        f"advance fails {_TRIES} times at message {message_id}", lambda: _failures(account, message_id, began), 100, 3
    )
    took = (times[_TRIES - 1] - times[0]) / 1000
    if took > 60:
        raise Failed(
            f"deliveries 1 and {_TRIES} of message {message_id} were {took:.0f} s apart, not seconds; check in the log"
            " of advance whether the role is allowed sqs:ChangeMessageVisibility"
        )
    return f"{_TRIES} deliveries within {took:.1f} s"


def _failures(account: Account, message_id: str, since: float) -> list[int] | None:
    """The times (ms since the epoch) when advance logged that it cannot read the message, or None if too few."""
    cause = hashlib.blake2b(message_id.encode(), digest_size=8).hexdigest()  # the engine's id of the message
    found = account.client("logs").filter_log_events(
        logGroupName=f"/aws/lambda/{account.engine_lambda('advance')}",
        startTime=round(since * 1000),
        filterPattern=f'"message {cause} cannot be read"',
    )["events"]
    times = sorted(event["timestamp"] for event in found)
    return times if len(times) >= _TRIES else None


def _take_out(account: Account, url: str, text: str) -> None:
    """Deletes this message from the queue. Raises Failed if it cannot be received within 10 minutes."""
    deadline = time.monotonic() + 600
    with ThreadPoolExecutor(_POLLERS) as pool:
        while time.monotonic() < deadline:
            if any(list(pool.map(lambda _: _delete_if_received(account, url, text), range(_POLLERS)))):
                return
    raise Failed(
        f"the message {text!r} is still in {url}; it goes to the dead letters in some hours; delete it there, in the"
        " SQS console under 'Send and receive messages'"
    )


def _delete_if_received(account: Account, url: str, text: str) -> bool:
    """Polls the queue once, and deletes the message if it was received. Other messages are returned at once."""
    sqs = account.client("sqs")
    is_deleted = False
    for message in _received(account, url):
        if message["Body"] == text:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            is_deleted = True
        else:
            sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
    return is_deleted


def _received(account: Account, url: str) -> Iterator[Json]:
    answer = account.client("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=1, WaitTimeSeconds=_POLL_S)
    yield from answer.get("Messages", ())

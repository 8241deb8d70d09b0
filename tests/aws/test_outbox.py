"""Batches of messages and events: how they are split, and which entries are sent again after partial failures.

SendMessageBatch and PutEvents may succeed in part, and list the failed entries:
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html
https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from stepwell.aws import clients
from stepwell.aws.queues.outbox import NotSent, put_events, send_messages

Json = dict[str, Any]
QUEUE = "https://sqs.eu-west-1.amazonaws.com/123456789012/outcomes"


class Accepted:
    status_code = 200
    headers: Json = {}  # noqa: RUF012
    content = b""


class Aws:
    """Accepts entries, except those that it refuses a number of times."""

    def __init__(self) -> None:
        self.requests: list[list[str]] = []
        self.refuses: dict[str, int] = {}

    def _refused(self, text: str) -> bool:
        self.refuses[text] = self.refuses.get(text, 0) - 1
        return self.refuses[text] >= 0

    def send_message_batch(self, params: Json, **_: Any) -> tuple[Any, Json]:
        entries = json.loads(params["body"])["Entries"]
        self.requests.append([entry["MessageBody"] for entry in entries])
        failed = [
            {"Id": entry["Id"], "Code": "InternalError", "SenderFault": False}
            for entry in entries
            if self._refused(entry["MessageBody"])
        ]
        return Accepted(), {"Successful": [], "Failed": failed, "ResponseMetadata": {"HTTPStatusCode": 200}}

    def put_events(self, params: Json, **_: Any) -> tuple[Any, Json]:
        entries = json.loads(params["body"])["Entries"]
        self.requests.append([entry["Detail"] for entry in entries])
        results = [
            {"ErrorCode": "ThrottlingException"} if self._refused(entry["Detail"]) else {"EventId": "1"}
            for entry in entries
        ]
        return Accepted(), {"Entries": results, "ResponseMetadata": {"HTTPStatusCode": 200}}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    clients.reset()
    aws = Aws()
    handlers: list[tuple[str, str, Callable[..., Any]]] = [
        ("sqs", "before-call.sqs.SendMessageBatch", aws.send_message_batch),
        ("events", "before-call.events.PutEvents", aws.put_events),
    ]
    for service, name, answer in handlers:
        clients.client(service).meta.events.register(name, answer, unique_id="outbox")
    yield aws
    for service, name, _ in handlers:
        clients.client(service).meta.events.unregister(name, unique_id="outbox")
    clients.reset()


def send(*texts: str) -> None:
    send_messages(QUEUE, [{"MessageBody": text} for text in texts])


def put(*texts: str) -> None:
    put_events([{"Detail": text, "DetailType": "x", "Source": "s", "EventBusName": "b"} for text in texts])


both = pytest.mark.parametrize("how", [send, put])
How = Callable[..., None]


@both
def test_ten_entries_are_one_request(aws: Aws, how: How) -> None:
    texts = [str(number) for number in range(21)]
    how(*texts)
    assert aws.requests == [texts[:10], texts[10:20], texts[20:]]


@both
def test_a_request_is_never_larger_than_aws_takes(aws: Aws, how: How) -> None:
    texts = [f"{number}" + "ä" * 200_000 for number in range(4)]  # 400 KB each in UTF-8
    how(*texts)
    assert aws.requests == [texts[:2], texts[2:]]


@both
def test_no_entries_are_no_request(aws: Aws, how: How) -> None:
    how()
    assert aws.requests == []


@both
def test_only_what_was_refused_is_sent_again(aws: Aws, how: How) -> None:
    aws.refuses = {"b": 1, "d": 2}
    how("a", "b", "c", "d")
    assert aws.requests == [["a", "b", "c", "d"], ["b", "d"], ["d"]]


@both
def test_what_is_refused_again_and_again_is_an_error_that_says_why(aws: Aws, how: How) -> None:
    aws.refuses = {"b": 99}
    with pytest.raises(NotSent, match=r"1 of 3 entries were refused: (InternalError|ThrottlingException)"):
        how("a", "b", "c")
    assert aws.requests == [["a", "b", "c"], ["b"], ["b"], ["b"]]

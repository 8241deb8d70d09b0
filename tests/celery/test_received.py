"""Messages of Celery clients, as they are and as they should not be."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from stepwell.local.celery.queues import RedisQueue
from stepwell.local.celery.received import BadMessage, Call, TaskCall, call_of, task_call

HEADERS = {"task": "shop.add", "id": "1", "eta": None, "expires": None, "retries": 0}
BODY = b'[[1,2],{"unit":"kg"},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'
JSON = "application/json"


def test_a_message_of_protocol_2_is_read() -> None:
    call = Call("1", "replies", "c", True)
    headers, properties = (
        {**HEADERS, "eta": "2026-11-30T12:00:00+00:00"},
        {"reply_to": "replies", "correlation_id": "c"},
    )
    eta = round(datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp() * 1000)
    assert task_call(headers, properties, JSON, BODY) == TaskCall(
        call, "shop.add", [1, 2], {"unit": "kg"}, 0, eta, None
    )


def test_a_message_of_protocol_1_is_read() -> None:
    body = {"task": "shop.add", "id": "1", "args": [1], "kwargs": {}, "retries": 2, "eta": None, "expires": None}
    found = task_call({}, {}, JSON, orjson.dumps(body))
    assert (found.task, found.args, found.retries, found.call) == ("shop.add", [1], 2, Call("1", "", "1", True))


@pytest.mark.parametrize(
    ("headers", "kind", "body", "reason"),
    [
        (HEADERS, "application/x-python-serialize", b"\x80\x04N.", "not JSON; set task_serializer = 'json'"),
        (HEADERS, "", BODY, "of no type, not JSON"),
        (HEADERS, JSON, b"{", "not valid JSON"),
        (HEADERS, JSON, b"[" * 100_000, "not valid JSON"),
        (HEADERS, JSON, b"{}", "the body is not"),
        (HEADERS, JSON, b"[[],{}]", "the body is not"),
        (HEADERS, JSON, b'[{},[],{}]', "have a wrong type"),
        ({**HEADERS, "task": 5}, JSON, BODY, "have a wrong type"),
        ({**HEADERS, "id": None}, JSON, BODY, "have a wrong type"),
        ({}, JSON, b"[1]", "it has no header `task`"),
        ({}, JSON, b'{"hello": 1}', "it has no header `task`"),
        ({**HEADERS, "eta": "tomorrow"}, JSON, BODY, "'tomorrow' is not a time"),
        (HEADERS, JSON, b'[[],{},{"chord":{"task":"x"}}]', "the task has chord, which only Celery can call afterwards"),
        (HEADERS, JSON, b'[[],{},{"callbacks":[{"task":"x"}],"chain":[1]}]', "the task has callbacks and chain"),
    ],
)  # fmt: skip
def test_a_message_that_is_no_task_is_refused_with_the_reason(
    headers: dict[str, Any], kind: str, body: bytes, reason: str
) -> None:
    with pytest.raises(BadMessage) as refused:
        task_call(headers, {}, kind, body)
    assert reason in str(refused.value)


@pytest.mark.parametrize("body", [b"", b"\xff", b"null", b"[]", b'{"id": 5}', b'{"id": ""}'])
def test_a_message_without_an_id_has_no_caller(body: bytes) -> None:
    assert call_of({}, {}, body) is None


@pytest.mark.parametrize("text", [b"", b"garbage", b"{}", b"null", b'{"body": 5, "properties": {}}', b"\xff\xfe"])
def test_what_is_no_envelope_of_kombu_is_a_message_without_a_task(text: bytes) -> None:
    message = RedisQueue._message(b"1", text)
    assert (message.content_type, message.body, message.tag) == ("text/plain", text, b"1")


def test_a_task_that_ignores_its_result_has_no_waiting_caller() -> None:
    call = call_of({**HEADERS, "ignore_result": True}, {}, BODY)
    assert call is not None
    assert not call.is_awaited

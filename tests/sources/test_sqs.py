"""SQS as a source, with moto's server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.ports import free_port
from tests.servers import eventually
from tests.sources.project import reading, write_source

boto3 = pytest.importorskip("boto3")
moto_server = pytest.importorskip("moto.server")

REGION = "eu-west-1"
ENV = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    port = free_port()
    server = moto_server.ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def sqs(endpoint: str) -> Any:
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    return boto3.client("sqs", region_name=REGION, endpoint_url=endpoint, **keys)


@pytest.fixture
def queue(sqs: Any) -> str:
    name = f"orders-{uuid4().hex[:8]}"
    sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "2"})
    return name


def source(folder: Path, endpoint: str, queue: str, **fields: Any) -> None:
    write_source(folder, "orders", type="sqs", queue=queue, region=REGION, endpoint=endpoint, **fields)


def left(sqs: Any, queue: str) -> int:
    """How many messages are in the queue, visible or not."""
    url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    return sum(map(int, sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"].values()))


def test_messages_become_events_and_are_deleted(tmp_path: Path, endpoint: str, sqs: Any, queue: str) -> None:
    source(tmp_path / "p", endpoint, queue, user="headers.by")
    url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    by = {"By": {"DataType": "String", "StringValue": "ada"}}
    body = json.dumps({"kind": "placed"})
    ids = [sqs.send_message(QueueUrl=url, MessageBody=body, MessageAttributes=by)["MessageId"] for _ in range(12)]
    sqs.send_message(QueueUrl=url, MessageBody="not JSON")
    with reading(tmp_path / "p", tmp_path / "db", env=ENV) as now:
        events = now.wait_for(12)
        assert {event["id"] for event in events} == {f"source:orders:sqs/{queue}/{name}" for name in ids}
        assert events[0]["user"] == {"external_id": "ada"}
        now.read("orders", 13)
        assert [item["kind"] for item in now.quarantine("orders")] == ["unreadable"]
        assert left(sqs, queue) == 0
        refused = now.api.http.post("/v1/sources/orders/replay", json={"from": "earliest"})
        assert (refused.status_code, "SQS deletes" in refused.json()["message"]) == (409, True)


def test_a_message_that_was_accepted_and_not_deleted_makes_no_second_event(
    tmp_path: Path, endpoint: str, sqs: Any, queue: str
) -> None:
    source(tmp_path / "p", endpoint, queue)
    url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    for n in range(30):
        sqs.send_message(QueueUrl=url, MessageBody=json.dumps({"kind": "made", "n": n}))
    with reading(tmp_path / "p", tmp_path / "db", env=ENV) as now:
        now.wait_for(1)
        now.server.kill()
    with reading(tmp_path / "p", tmp_path / "db", env=ENV) as now:
        eventually(lambda: left(sqs, queue) == 0, within=60, every=0.1)
        assert sorted(event["data"]["n"] for event in now.wait_for(30)) == list(range(30))


def test_a_queue_that_does_not_exist_is_reported(tmp_path: Path, endpoint: str) -> None:
    source(tmp_path / "p", endpoint, "missing")
    with reading(tmp_path / "p", tmp_path / "db", env=ENV) as now:
        failing = eventually(lambda: found if (found := now.source("orders"))["error"] else None) or {}
        assert failing["state"] == "failing"
        assert "does not exist" in failing["error"]

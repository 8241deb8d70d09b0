"""RabbitMQ as a source, with a real node."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.brokers import rabbitmq
from tests.servers import eventually
from tests.sources.project import reading, write_source

kombu = pytest.importorskip("kombu")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with rabbitmq(tmp_path_factory.mktemp("rabbitmq")) as port:
        yield f"amqp://guest:{{}}@127.0.0.1:{port}//"


@pytest.fixture
def channel(url: str) -> Iterator[Any]:
    with kombu.Connection(url.format("guest")) as connection:
        yield connection.channel()


@pytest.fixture
def queue(channel: Any) -> str:
    name = f"orders-{uuid4().hex[:8]}"
    channel.queue_declare(name, durable=True, auto_delete=False)
    return name


def publish(channel: Any, queue: str, body: bytes, headers: dict[str, str] | None = None, **properties: Any) -> None:
    message = channel.prepare_message(body, headers=headers or {}, properties=properties)
    channel.basic_publish(message, "", queue)


def source(folder: Path, url: str, queue: str, **fields: Any) -> None:
    write_source(folder, "orders", type="rabbitmq", url=url.format("${PASSWORD}"), queue=queue, **fields)


def test_messages_become_events_and_are_acknowledged(tmp_path: Path, url: str, channel: Any, queue: str) -> None:
    source(tmp_path / "p", url, queue, user="headers.by")
    body = json.dumps({"kind": "placed"}).encode()
    publish(channel, queue, body, {"By": "ada"}, message_id="m-1", timestamp=1_700_000_000)
    publish(channel, queue, body, {"By": "bob"}, message_id="m-1")
    publish(channel, queue, body, {"By": "bob"})
    publish(channel, queue, body, {"By": "bob"})
    publish(channel, queue, b"\xff", message_id="m-2")
    with reading(tmp_path / "p", tmp_path / "db", env={"PASSWORD": "guest"}) as now:
        now.read("orders", 5)
        first, second, third = now.events()
        assert (first["id"], first["ts"]) == (f"source:orders:amqp/{queue}/m-1", 1_700_000_000_000)
        assert first["user"] == {"external_id": "ada"}
        assert second["id"] != third["id"], "messages without an id are never taken for the same one"
        assert [item["record"] for item in now.quarantine("orders")] == [f"amqp/{queue}/m-2"]
        refused = now.api.http.post("/v1/sources/orders/replay", json={"from": "earliest"})
        assert (refused.status_code, "RabbitMQ deletes" in refused.json()["message"]) == (409, True)
    assert channel.queue_declare(queue, passive=True).message_count == 0


def test_a_wrong_password_is_reported_and_a_missing_queue_is_named(tmp_path: Path, url: str, queue: str) -> None:
    source(tmp_path / "p", url, queue)
    with reading(tmp_path / "p", tmp_path / "db", env={"PASSWORD": "wr0ng-secret"}) as now:
        failing = eventually(lambda: found if (found := now.source("orders"))["error"] else None) or {}
        assert "ACCESS_REFUSED" in failing["error"]
        assert "wr0ng-secret" not in json.dumps(failing)
    source(tmp_path / "p", url, "missing")
    with reading(tmp_path / "p", tmp_path / "db", env={"PASSWORD": "guest"}) as now:
        failing = eventually(lambda: found if (found := now.source("orders"))["error"] else None) or {}
        assert "no queue 'missing'" in failing["error"]


def test_kills_of_the_server_lose_no_message_and_make_no_event_twice(
    tmp_path: Path, url: str, channel: Any, queue: str
) -> None:
    source(tmp_path / "p", url, queue, batch=10)
    for n in range(400):
        publish(channel, queue, json.dumps({"kind": "made", "n": n}).encode(), message_id=str(n))
    for _ in range(2):
        with reading(tmp_path / "p", tmp_path / "db", env={"PASSWORD": "guest"}) as now:
            eventually(lambda: now.source("orders")["records"] > 20)
            now.server.kill()
    with reading(tmp_path / "p", tmp_path / "db", env={"PASSWORD": "guest"}) as now:
        assert sorted(event["data"]["n"] for event in now.wait_for(400)) == list(range(400))
        eventually(lambda: now.source("orders")["lag"]["records"] == 0)
    assert channel.queue_declare(queue, passive=True).message_count == 0

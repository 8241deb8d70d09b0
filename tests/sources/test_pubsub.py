"""Google Pub/Sub as a source, with a stand-in for the service; push with the rule of a webhook."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Json, eventually
from tests.sources.project import reading, write_source

pytest.importorskip("google.pubsub_v1")

from tests.sources.pubsub_host import pubsub_host

PATH = "projects/shop/subscriptions/orders"


def source(folder: Path, endpoint: str, **fields: Any) -> None:
    more: Json = {"project": "shop", "subscription": "orders", **fields}
    write_source(folder, "orders", type="pubsub", endpoint=endpoint, **more)


def test_messages_become_events_and_are_acknowledged(tmp_path: Path) -> None:
    with pubsub_host(PATH) as host:
        source(tmp_path / "p", host.address, user="attributes.by")
        host.publish(json.dumps({"kind": "placed"}).encode(), by="ada")
        host.publish(b"not JSON")
        with reading(tmp_path / "p", tmp_path / "db") as now:
            now.read("orders", 2)
            (event,) = now.events()
            assert event["id"] == f"source:orders:pubsub/{PATH}/1"
            assert event["user"] == {"external_id": "ada"}
            assert [item["kind"] for item in now.quarantine("orders")] == ["unreadable"]
            assert host.unacknowledged == 0
            now.post("/v1/sources/orders/replay", {"from": "1h"})
            again = now.wait_for(2)[1]
            assert again["id"].startswith(f"{event['id']}/replay/")


def test_kills_of_the_server_lose_no_message_and_make_no_event_twice(tmp_path: Path) -> None:
    with pubsub_host(PATH) as host:
        source(tmp_path / "p", host.address, batch=10)
        for n in range(200):
            host.publish(json.dumps({"kind": "made", "n": n}).encode())
        with reading(tmp_path / "p", tmp_path / "db") as now:
            eventually(lambda: now.source("orders")["records"] > 20)
            now.server.kill()
        host.redeliver()
        with reading(tmp_path / "p", tmp_path / "db") as now:
            eventually(lambda: host.unacknowledged == 0)
            assert sorted(event["data"]["n"] for event in now.wait_for(200)) == list(range(200))


def test_a_missing_subscription_is_reported(tmp_path: Path) -> None:
    with pubsub_host(PATH) as host:
        source(tmp_path / "p", host.address, subscription="missing")
        with reading(tmp_path / "p", tmp_path / "db") as now:
            failing = eventually(lambda: found if (found := now.source("orders"))["error"] else None) or {}
            assert "projects/shop/subscriptions/missing" in failing["error"]


def test_pushed_messages_become_events_by_the_rule_of_a_webhook(tmp_path: Path) -> None:
    """https://cloud.google.com/pubsub/docs/push#receive_push"""
    folder = tmp_path / "p" / "webhooks"
    folder.mkdir(parents=True)
    rule = {
        "event": "order/{{ parse_json(string(base64.decode(body.message.data))).kind }}",
        "id": "body.message.messageId",
        "data": "parse_json(string(base64.decode(body.message.data)))",
        "ts": "body.message.publishTime",
        "verify": {"type": "token", "query": "token", "secret": "PUBSUB_TOKEN"},
    }
    (folder / "pubsub.json").write_text(json.dumps(rule))
    message = {"data": base64.b64encode(b'{"kind": "placed", "n": 1}').decode(), "messageId": "7",
               "publishTime": "2026-11-23T10:00:00.5Z", "attributes": {}}  # fmt: skip
    with reading(tmp_path / "p", tmp_path / "db", env={"PUBSUB_TOKEN": "s3cret"}) as now:
        for _ in range(2):
            answer = now.api.http.post("/webhooks/pubsub?token=s3cret", json={"message": message, "subscription": PATH})
            assert answer.status_code == 200, answer.text
        (event,) = now.events()
        assert (event["id"], event["name"], event["data"]["n"]) == ("webhook:pubsub:7", "order/placed", 1)

"""Kafka as a source, with a broker that speaks the protocol."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from stepwell.core.sources.records import Record
from tests.ports import free_port
from tests.servers import Json, eventually
from tests.sources.project import reading, write_source

confluent_kafka = pytest.importorskip("confluent_kafka")
from confluent_kafka.admin import AdminClient, NewTopic  # noqa: E402

QUIET = {"log_level": 0}


@pytest.fixture
def topic(kafka: str) -> str:
    name = f"orders-{uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": kafka, **QUIET})
    for made in admin.create_topics([NewTopic(name, 2, 1)]).values():
        made.result(10)
    return name


def produce(
    kafka: str, topic: str, bodies: Sequence[Any], headers: Mapping[str, str] | None = None, **fields: Any
) -> None:
    """Sends records to partition 0, unless `fields` says otherwise. A body that is not bytes is sent as JSON."""
    producer = confluent_kafka.Producer({"bootstrap.servers": kafka, **QUIET})
    for body in bodies:
        value = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        producer.produce(topic, value, headers=dict(headers or {}), **{"partition": 0, **fields})
    assert producer.flush(20) == 0


def source(folder: Path, kafka: str, topic: str, **fields: Any) -> None:
    write_source(folder, "orders", **{"type": "kafka", "brokers": [kafka], "topics": [topic], **fields})


def committed(kafka: str, topic: str, group: str = "stepwell-orders") -> int:
    """The sum of the committed offsets."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": kafka, "group.id": group, **QUIET})
    partitions = [confluent_kafka.TopicPartition(topic, number) for number in (0, 1)]
    found = sum(max(0, place.offset) for place in consumer.committed(partitions, 10))
    consumer.close()
    return int(found)


def test_records_of_all_partitions_become_events(tmp_path: Path, kafka: str, topic: str) -> None:
    source(tmp_path / "p", kafka, topic, user="key", data="{'at': [partition, offset], 'by': headers.by}")
    produce(kafka, topic, [{"kind": "placed"}], {"By": "web"}, key="ada")
    produce(kafka, topic, [{"kind": "paid"}], {"By": "app"}, key="bob", partition=1)
    with reading(tmp_path / "p", tmp_path / "db") as now:
        first, second = sorted(now.wait_for(2), key=lambda event: str(event["id"]))
        assert first["id"].startswith("source:orders:kafka/")
        assert first["id"].endswith(f"/{topic}/0/0")
        assert (first["name"], first["user"]["external_id"]) == ("order/placed", "ada")
        assert first["data"] == {"at": [0, 0], "by": "web"}
        assert (second["name"], second["data"]["at"]) == ("order/paid", [1, 0])
        now.read("orders", 2)
        assert committed(kafka, topic) == 2, "the offsets are committed after the events are durable"


def test_cloudevents_name_their_events_themselves(tmp_path: Path, kafka: str, topic: str) -> None:
    source(tmp_path / "p", kafka, topic, event=None)
    binary = {"ce_specversion": "1.0", "ce_type": "order/placed", "ce_source": "/shop", "ce_id": "1",
              "ce_time": "2026-11-23T10:00:00Z", "content-type": "application/json"}  # fmt: skip
    produce(kafka, topic, [{"n": 1}], binary)
    whole = {"specversion": "1.0", "type": "order/paid", "source": "/shop", "id": "2", "data": {"n": 2}, "user": "ada"}
    produce(kafka, topic, [whole], {"content-type": "application/cloudevents+json; charset=utf-8"})
    produce(kafka, topic, [{"n": 1}], binary)
    produce(kafka, topic, [{"n": 3}])
    with reading(tmp_path / "p", tmp_path / "db") as now:
        now.read("orders", 4)
        first, second = now.events()
        assert (first["name"], first["id"], first["data"]["n"]) == ("order/placed", "source:orders:/shop 1", 1)
        assert first["ts"] == datetime(2026, 11, 23, 10, tzinfo=UTC).timestamp() * 1000
        assert (second["name"], second["data"]["n"], second["user"]) == ("order/paid", 2, {"external_id": "ada"})
        (other,) = now.quarantine("orders")
        assert "not a CloudEvent" in other["why"]


def test_a_tombstone_has_no_body_and_no_data(tmp_path: Path, kafka: str, topic: str) -> None:
    source(tmp_path / "p", kafka, topic, event="order/{{ body == null ? 'deleted' : 'kept' }}")
    produce(kafka, topic, [None], key="7")
    with reading(tmp_path / "p", tmp_path / "db") as now:
        (event,) = now.wait_for(1)
        assert (event["name"], event["data"]) == ("order/deleted", {})


def test_records_are_replayed_from_an_offset_and_from_a_time(tmp_path: Path, kafka: str, topic: str) -> None:
    source(tmp_path / "p", kafka, topic)
    before = datetime.now(UTC).isoformat()
    produce(kafka, topic, [{"kind": "placed", "n": n} for n in range(5)])
    with reading(tmp_path / "p", tmp_path / "db") as now:
        now.read("orders", 5)
        now.post("/v1/sources/orders/replay", {"from": f"{topic}/0/3"})
        assert [event["data"]["n"] for event in now.wait_for(7)[5:]] == [3, 4]
        now.read("orders", 7)
        now.post("/v1/sources/orders/replay", {"from": before})
        assert [event["data"]["n"] for event in now.wait_for(12)[7:]] == [0, 1, 2, 3, 4]
        refused = now.api.http.post("/v1/sources/orders/replay", json={"from": "12"})
        assert refused.status_code == 409
        assert "write topic/partition/offset" in refused.json()["message"]


def test_a_missing_topic_is_reported_and_read_once_it_is_there(tmp_path: Path, kafka: str) -> None:
    topic = f"later-{uuid4().hex[:8]}"
    source(tmp_path / "p", kafka, topic)
    with reading(tmp_path / "p", tmp_path / "db") as now:
        failing = eventually(lambda: found if (found := now.source("orders"))["error"] else None) or {}
        assert failing["state"] == "failing"
        assert f"the topic {topic} does not exist" in failing["error"]
        admin = AdminClient({"bootstrap.servers": kafka, **QUIET})
        for made in admin.create_topics([NewTopic(topic, 2, 1)]).values():
            made.result(10)
        produce(kafka, topic, [{"kind": "placed"}])
        now.wait_for(1)


def test_a_broker_that_is_not_there_is_reported(tmp_path: Path) -> None:
    source(tmp_path / "p", f"127.0.0.1:{free_port()}", "orders")
    with reading(tmp_path / "p", tmp_path / "db") as now:
        failing = eventually(lambda: found if (found := now.source("orders"))["error"] else None) or {}
        assert failing["state"] == "failing"
        assert "connect" in failing["error"].lower() or "broker" in failing["error"].lower()
        assert now.api.send("order/by-hand"), "the server does its other work"


def test_the_lag_counts_the_records_of_each_partition(kafka: str, topic: str) -> None:
    from stepwell.local.sources.kafka import KafkaReader
    from stepwell.local.sources.reader import ReaderSettings

    produce(kafka, topic, [{"n": n} for n in range(6)])
    produce(kafka, topic, [{"n": n} for n in range(3)], partition=1)
    reader = KafkaReader(ReaderSettings("orders", {"brokers": [kafka], "topics": [topic]}, "me"))
    reader.open()
    polled: list[Record] = []
    while len(polled) < 7:
        polled += reader.poll(7 - len(polled), 0.5).records
    assert eventually(lambda: reader.lag().records == 2), "both partitions have been fetched"
    left = {f"{topic}/{number}": sent - len([r for r in polled if r.place["partition"] == number])
            for number, sent in ((0, 6), (1, 3))}  # fmt: skip
    lag = reader.lag()
    assert {name: of.records for name, of in lag.partitions.items()} == left
    waiting = lag.with_waiting(polled, min(record.at for record in polled) + 2000)
    assert waiting.records == 9, "what is polled is behind until it is accepted"
    assert waiting.seconds == 2.0, "the age of the oldest record"
    assert {name: of.records for name, of in waiting.partitions.items()} == {f"{topic}/0": 6, f"{topic}/1": 3}
    reader.close()


def test_the_lag_is_shown_by_partition(tmp_path: Path, kafka: str, topic: str) -> None:
    source(tmp_path / "p", kafka, topic)
    produce(kafka, topic, [{"kind": "placed"}])
    with reading(tmp_path / "p", tmp_path / "db") as now:
        now.read("orders", 1)
        none = {"records": 0, "seconds": 0.0}
        shown = [{"partition": f"{topic}/{number}", **none} for number in (0, 1)]
        eventually(lambda: now.source("orders")["lag"] == {**none, "partitions": shown}, within=20)
        unknown = {"records": None, "seconds": None, "partitions": []}
        assert now.post("/v1/sources/orders/pause")["lag"] == unknown, "not what it was before the pause"


def test_a_paused_source_continues_at_its_offset_also_after_a_restart(tmp_path: Path, kafka: str, topic: str) -> None:
    source(tmp_path / "p", kafka, topic)
    produce(kafka, topic, [{"kind": "placed", "n": 0}])
    with reading(tmp_path / "p", tmp_path / "db") as now:
        now.read("orders", 1)
        assert now.post("/v1/sources/orders/pause")["state"] == "paused"
        produce(kafka, topic, [{"kind": "placed", "n": 1}])
    with reading(tmp_path / "p", tmp_path / "db") as now:
        assert now.source("orders")["state"] == "paused"
        assert len(now.events()) == 1
        now.post("/v1/sources/orders/resume")
        assert [event["data"]["n"] for event in now.wait_for(2)] == [0, 1]
        now.read("orders", 1)
        assert now.source("orders")["records"] == 1, "the first record is not read again"


def test_kills_of_the_server_lose_no_record_and_make_no_event_twice(tmp_path: Path, kafka: str, topic: str) -> None:
    source(tmp_path / "p", kafka, topic, batch=20)
    sent = 0
    for _ in range(3):
        for partition in (0, 1):
            bodies: list[Json] = [{"kind": "made", "n": n} for n in range(sent, sent + 200)]
            produce(kafka, topic, bodies, partition=partition)
            sent += 200
        with reading(tmp_path / "p", tmp_path / "db") as now:
            eventually(lambda: now.source("orders")["records"] > 40)
            now.server.kill()
    with reading(tmp_path / "p", tmp_path / "db") as now:
        numbers = [event["data"]["n"] for event in now.wait_for(sent)]
        eventually(lambda: committed(kafka, topic) == sent)
        assert sorted(numbers) == list(range(sent))

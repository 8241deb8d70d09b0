"""Redis Streams as a source, with a real server."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import pytest

from tests.brokers import redis_server
from tests.servers import eventually
from tests.sources.project import reading, write_source

redis = pytest.importorskip("redis")


@pytest.fixture
def stream() -> str:
    return f"orders-{uuid4().hex[:8]}"


def add(port: int, stream: str, *bodies: object, field: str = "body", **more: str) -> list[str]:
    client = redis.Redis(port=port, decode_responses=True)
    ids = [client.xadd(stream, {field: body if isinstance(body, str) else json.dumps(body), **more}) for body in bodies]
    client.close()
    return ids


def source(folder: Path, port: int, stream: str, **fields: object) -> None:
    write_source(folder, "orders", **{"type": "redis", "url": f"redis://127.0.0.1:{port}", "stream": stream,
                                      "field": "body", **fields})  # fmt: skip


def test_entries_become_events_that_start_functions(tmp_path: Path, redis_port: int, stream: str) -> None:
    source(tmp_path / "p", redis_port, stream, user="headers.by")
    (before,) = add(redis_port, stream, {"kind": "placed", "n": 1}, By="ada")
    with reading(tmp_path / "p", tmp_path / "db") as now:
        (during,) = add(redis_port, stream, {"kind": "placed", "n": 2}, By="bob")
        first, second = now.wait_for(2)
        assert (first["id"], first["data"]["n"]) == (f"source:orders:redis/{stream}/{before}", 1)
        assert (second["id"], second["user"]) == (f"source:orders:redis/{stream}/{during}", {"external_id": "bob"})
        assert first["ts"] == int(before.partition("-")[0]), "the time is that of the entry"
        assert now.api.ended(first["id"])["status"] == "completed"
        now.read("orders", 2)
    client = redis.Redis(port=redis_port)
    assert client.xpending(stream, "stepwell")["pending"] == 0, "the entries are acknowledged"


def test_without_field_the_body_is_the_object_of_all_fields(tmp_path: Path, redis_port: int, stream: str) -> None:
    source(tmp_path / "p", redis_port, stream, field=None, event="order/{{ body.kind }}")
    with reading(tmp_path / "p", tmp_path / "db") as now:
        redis.Redis(port=redis_port).xadd(stream, {"kind": "placed", "amount": "12"})
        (event,) = now.wait_for(1)
        assert event["data"] == {"kind": "placed", "amount": "12"}


def test_latest_begins_with_the_next_entry(tmp_path: Path, redis_port: int, stream: str) -> None:
    add(redis_port, stream, {"kind": "old"})
    source(tmp_path / "p", redis_port, stream, start="latest")
    with reading(tmp_path / "p", tmp_path / "db") as now:
        eventually(lambda: now.source("orders")["state"] == "running")
        add(redis_port, stream, {"kind": "new"})
        assert [event["name"] for event in now.wait_for(1)] == ["order/new"]


def test_a_record_that_makes_no_event_is_in_quarantine_and_holds_up_nothing(
    tmp_path: Path, redis_port: int, stream: str
) -> None:
    folder = tmp_path / "p"
    source(folder, redis_port, stream, event="order/{{ body.kind }}")
    add(redis_port, stream, "no json", {"no": "kind"}, {"kind": "big", "text": "x" * 300_000}, {"kind": "placed"})
    with reading(folder, tmp_path / "db") as now:
        assert [event["name"] for event in now.wait_for(1)] == ["order/placed"]
        now.read("orders", 4)
        newest_first = now.quarantine("orders")
        assert [item["kind"] for item in newest_first] == ["too_large", "rule", "unreadable"]
        rule = newest_first[1]
        assert rule["field"] == "event"
        assert "kind" in rule["why"]
        whole = now.api.get(f"/v1/sources/orders/quarantine/{rule['id']}")
        assert json.loads(whole["body"]) == {"no": "kind"}
        assert now.source("orders")["quarantined"] == 3

        ids = [item["id"] for item in newest_first]
        retried = now.post("/v1/sources/orders/quarantine/retry", {"ids": ids})
        assert retried == {"accepted": [], "left": ids}, "the rule is as it was"
        assert now.quarantine("orders") == newest_first, "a record keeps the time at which it came"
        unknown = now.api.http.post("/v1/sources/orders/quarantine/discard", json={"ids": [*ids, 99]})
        assert (unknown.status_code, unknown.json()["message"]) == (404, "the quarantine of orders has no record 99")
        source(folder, redis_port, stream, event="order/any", data="{'size': 1}", body="text")
        eventually(lambda: now.source("orders")["definition"]["event"] == "order/any")
        assert now.post("/v1/sources/orders/quarantine/retry", {"ids": ids[1:]}) == {"accepted": ids[1:], "left": []}
        mended = [event["id"] for event in now.wait_for(3) if event["name"] == "order/any"]
        assert sorted(mended) == sorted(f"source:orders:{item['record']}" for item in newest_first[1:])
        assert now.post("/v1/sources/orders/quarantine/discard", {"ids": ids[:1]})["quarantined"] == 0


def test_events_that_their_type_refuses_are_in_quarantine(tmp_path: Path, redis_port: int, stream: str) -> None:
    source(tmp_path / "p", redis_port, stream)
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    with reading(tmp_path / "p", tmp_path / "db") as now:
        now.post("/v1/types", {"name": "order/placed", "version": "1", "schema": schema, "policy": "reject"})
        add(redis_port, stream, *({"kind": "placed", "n": n} for n in (1, "x", 3)))
        assert [event["data"]["n"] for event in now.wait_for(2)] == [1, 3]
        now.read("orders", 3)
        (refused,) = now.quarantine("orders")
        assert refused["kind"] == "refused"
        assert refused["why"].startswith("/data/n")


def test_a_replay_makes_new_events_of_records_that_were_read(tmp_path: Path, redis_port: int, stream: str) -> None:
    source(tmp_path / "p", redis_port, stream)
    ids = add(redis_port, stream, *({"kind": "placed", "n": n} for n in range(4)))
    with reading(tmp_path / "p", tmp_path / "db") as now:
        now.read("orders", 4)
        now.post("/v1/sources/orders/replay", {"from": ids[2]})
        again = now.wait_for(6)[4:]
        assert [event["data"]["n"] for event in again] == [2, 3]
        assert all("/replay/" in event["id"] for event in again)
        (new,) = add(redis_port, stream, {"kind": "placed", "n": 9})
        assert now.wait_for(7)[-1]["id"] == f"source:orders:redis/{stream}/{new}", "later records have ordinary ids"
        answer = now.api.http.post("/v1/sources/orders/replay", json={"from": "not an id"})
        assert answer.status_code == 409
        assert "is not the id of an entry" in answer.json()["message"]
        assert now.api.http.post("/v1/sources/orders/replay", json={"from": "2026-01-01T00:00"}).status_code == 400


def test_a_paused_source_reads_nothing_until_it_is_resumed(tmp_path: Path, redis_port: int, stream: str) -> None:
    source(tmp_path / "p", redis_port, stream)
    with reading(tmp_path / "p", tmp_path / "db") as now:
        eventually(lambda: now.source("orders")["state"] == "running")
        assert now.post("/v1/sources/orders/pause")["state"] == "paused"
        add(redis_port, stream, {"kind": "placed"})
    with reading(tmp_path / "p", tmp_path / "db") as now:
        assert now.source("orders")["state"] == "paused", "also after a restart"
        assert now.events() == []
        now.post("/v1/sources/orders/resume")
        now.wait_for(1)


def test_a_broker_that_is_gone_is_reported_and_read_again_when_it_is_back(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis") as port:
        pass
    source(tmp_path / "p", port, "orders")
    with reading(tmp_path / "p", tmp_path / "db") as now:
        failing = eventually(lambda: found if (found := now.source("orders"))["state"] == "failing" else None)
        assert failing is not None
        assert "refused" in failing["error"]
        assert failing["next_try_at"] is not None
        now.api.send("order/by-hand")
        with redis_server(tmp_path / "redis", port):
            add(port, "orders", {"kind": "placed"})
            now.wait_for(2)
            found = now.source("orders")
            assert (found["state"], found["error"]) == ("running", None)


def test_a_wrong_password_is_reported_and_never_shown(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis", None, "--requirepass", "right") as port:
        source(tmp_path / "p", port, "orders", url=f"redis://:${{REDIS_PASSWORD}}@127.0.0.1:{port}")
        with reading(tmp_path / "p", tmp_path / "db", env={"REDIS_PASSWORD": "wr0ng-secret"}) as now:
            failing = eventually(lambda: found if (found := now.source("orders"))["error"] else None)
            assert failing is not None
            assert "password" in failing["error"].lower()
            assert "wr0ng-secret" not in json.dumps(failing) + now.server.stderr
            assert "${REDIS_PASSWORD}" in failing["definition"]["url"]
        with reading(tmp_path / "p", tmp_path / "db", env={"REDIS_PASSWORD": "right"}) as now:
            eventually(lambda: now.source("orders")["state"] == "running")


def test_the_lag_counts_what_is_not_read(tmp_path: Path, redis_port: int, stream: str) -> None:
    from stepwell.core.sources.places import Place
    from stepwell.local.sources.reader import ReaderSettings
    from stepwell.local.sources.redis_streams import RedisReader

    settings = {"url": f"redis://127.0.0.1:{redis_port}", "stream": stream, "field": "body"}
    add(redis_port, stream, *range(5))
    reader = RedisReader(ReaderSettings("orders", settings, "me"))
    reader.open()
    polled = reader.poll(2, 0.1)
    assert [record.body for record in polled.records] == [b"0", b"1"]
    lag = reader.lag()
    assert lag.records == 3
    assert lag.seconds is not None
    reader.commit(polled)
    reader.seek(Place())
    assert reader.lag().records == 5
    reader.close()


def test_entries_of_a_dead_reader_of_the_group_are_claimed(tmp_path: Path, redis_port: int, stream: str) -> None:
    add(redis_port, stream, {"kind": "placed", "n": 1}, {"kind": "placed", "n": 2})
    client = redis.Redis(port=redis_port)
    client.xgroup_create(stream, "stepwell", "0")
    client.xreadgroup("stepwell", "dead", {stream: ">"}, count=1)
    source(tmp_path / "p", redis_port, stream, claim_after="10ms")
    with reading(tmp_path / "p", tmp_path / "db") as now:
        assert sorted(event["data"]["n"] for event in now.wait_for(2)) == [1, 2]
        now.read("orders", 2)
        assert client.xpending(stream, "stepwell")["pending"] == 0


def test_a_kill_of_the_broker_loses_no_record_and_makes_no_event_twice(tmp_path: Path) -> None:
    safe = ("--appendonly", "yes", "--appendfsync", "always")
    with redis_server(tmp_path / "redis", None, *safe) as port:
        add(port, "orders", *({"kind": "made", "n": n} for n in range(300)))
    source(tmp_path / "p", port, "orders", batch=5)
    with reading(tmp_path / "p", tmp_path / "db") as now:
        with redis_server(tmp_path / "redis", port, *safe):
            eventually(lambda: now.source("orders")["records"] > 20)
        with redis_server(tmp_path / "redis", port, *safe):
            assert sorted(event["data"]["n"] for event in now.wait_for(300)) == list(range(300))


def test_large_records_are_read_few_at_a_time(tmp_path: Path, redis_port: int, stream: str) -> None:
    source(tmp_path / "p", redis_port, stream)
    add(redis_port, stream, *({"kind": "large", "text": "x" * 200_000} for _ in range(60)))
    with reading(tmp_path / "p", tmp_path / "db") as now:
        now.read("orders", 60)
        assert len(now.events()) == 60


@pytest.mark.parametrize("kills", [3])
def test_kills_of_the_server_lose_no_record_and_make_no_event_twice(
    tmp_path: Path, redis_port: int, stream: str, kills: int
) -> None:
    source(tmp_path / "p", redis_port, stream, batch=20)
    client = redis.Redis(port=redis_port)
    sent = 0
    for _ in range(kills):
        pipeline = client.pipeline()
        for n in range(sent, sent + 400):
            pipeline.xadd(stream, {"body": json.dumps({"kind": "made", "n": n})})
        pipeline.execute()
        sent += 400
        with reading(tmp_path / "p", tmp_path / "db") as now:
            eventually(lambda: now.source("orders")["records"] > 40)
            now.server.kill()
    with reading(tmp_path / "p", tmp_path / "db") as now:
        numbers = [event["data"]["n"] for event in now.wait_for(sent)]
        eventually(lambda: client.xpending(stream, "stepwell")["pending"] == 0)
        assert sorted(numbers) == list(range(sent))

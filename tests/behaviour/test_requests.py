"""Requests with events: the limits on number and nesting, the ids, and the encodings."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable

import orjson
import pytest

from stepwell.api.ingest import event_ids
from stepwell.core.events.engine_ids import EngineId
from tests.behaviour.words import Json, Platform, Refused, function

BOM = b"\xef\xbb\xbf"
GO = gzip.compress(b'{"name":"go"}', mtime=0)
BATCH = "application/cloudevents-batch+json"


def ids(platform: Platform, body: bytes, **headers: str) -> list[str]:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    found: list[str] = platform.http("POST", "/e", body, {"content-type": "application/json", **sent}).json()["ids"]
    return found


def refused(platform: Platform, body: bytes, **headers: str) -> Refused:
    with pytest.raises(Refused) as info:
        ids(platform, body, **headers)
    return info.value


def cloudevent(id: str, **more: object) -> Json:
    return {"specversion": "1.0", "id": id, "source": "/shop", "type": "go", **more}


@pytest.mark.kind("a thousand events, each refused now and then, take minutes")
def test_a_request_can_have_1000_events(platform: Platform) -> None:
    events = [{"name": "go", "id": f"e{n}"} for n in range(1000)]
    assert ids(platform, orjson.dumps(events)) == [event["id"] for event in events]
    events = [{**event, "id": f"other-{event['id']}"} for event in [*events, *events[:1]]]
    error = refused(platform, orjson.dumps(events))
    assert (error.status, error.errors[0]["message"]) == (
        413,
        "the request has 1,001 events, more than 1,000; send several requests",
    )
    batch = [cloudevent(f"c{n}") for n in range(1001)]
    assert refused(platform, orjson.dumps(batch), content_type=BATCH).status == 413
    many = b"[" + b'{"name":"go"},' * 250_000 + b'{"name":"go"}]'
    assert refused(platform, many).status == refused(platform, many, content_type=BATCH).status == 413
    assert len(platform.events("go")) == 1000


@pytest.mark.parametrize("prefix", EngineId)
def test_ids_with_reserved_prefixes_are_refused(platform: Platform, prefix: str) -> None:
    """Applies to all ways of sending, so that a sender cannot turn an engine event into a duplicate."""
    platform.deploy(function(on="go"))
    events = [{"name": "go"}, {"name": "go", "id": f"{prefix}x"}]
    error = refused(platform, orjson.dumps(events))
    assert (error.status, error.errors) == (
        400,
        [
            {
                "index": 1,
                "pointer": "/id",
                "message": f"ids that begin with '{prefix}' are reserved for the engine; choose another id",
            }
        ],
    )
    seed = {"x_inngest_event_id_seed": "1700000000000,AAAAAAAAAAAAAA=="}
    assert refused(platform, orjson.dumps(events), **seed).errors == error.errors
    batch = [cloudevent("1"), cloudevent("x", source=f"{prefix}x")]
    (wrong,) = refused(platform, orjson.dumps(batch), content_type=BATCH).errors
    assert (wrong["index"], wrong["pointer"]) == (1, "/source")
    assert platform.events("go") == []


def test_reserved_prefixes_are_case_sensitive(platform: Platform) -> None:
    sent = ["Cron:x", " cron:x", "cron", "crons:x", "x cron:y", "RUN:x"]
    assert ids(platform, orjson.dumps([{"name": "go", "id": name} for name in sent])) == sent


def test_the_engine_can_use_reserved_prefixes(platform: Platform) -> None:
    platform.deploy(function(on="go"))
    platform.deploy(function(id="told", on="stepwell/run.completed"))
    platform.runs(platform.send("go"))
    (fields,) = platform.events("stepwell/run.completed")
    assert fields["id"].startswith("run:")


@pytest.mark.kind("the last of many equal ids takes as many requests, of which some are refused each time")
def test_events_whose_generated_ids_collide_are_all_accepted(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulates randomness that always returns the same bytes: new ids within a millisecond are then equal."""
    platform.deploy(function(on="go"))
    with monkeypatch.context() as broken:
        broken.setattr(os, "urandom", bytes)
        event_ids.forget()
        try:
            for n in range(3):
                ids(platform, orjson.dumps([{"name": "go", "data": {"n": [n, i]}} for i in range(20)]))
        finally:
            event_ids.forget()
    events = platform.events("go")
    assert sorted(event["data"]["n"] for event in events) == [[n, i] for n in range(3) for i in range(20)]
    assert len({event["id"] for event in events}) == 60
    assert len(platform.runs()) == 60


@pytest.mark.parametrize("levels", [129, 300, 1000, 100_000])
def test_json_nested_more_than_128_levels_is_refused(platform: Platform, levels: int) -> None:
    deep = b'{"name":"go","data":%b%b}' % (b'{"a":' * (levels - 2) + b"{", b"}" * (levels - 1))
    for body in (deep, b'[{"name":"go"},%b]' % deep):
        error = refused(platform, body)
        assert (error.status, error.errors[0]["pointer"]) == (400, "")
        assert "nested" in error.errors[0]["message"]
    assert refused(platform, deep.replace(b'"name":"go"', b'"specversion":"1.0","id":"1","source":"s","type":"go"'),
                   content_type="application/cloudevents+json").status == 400  # fmt: skip
    assert platform.events("go") == []


def test_an_event_can_have_128_levels(platform: Platform) -> None:
    deep = b'{"name":"go","data":%b%b}' % (b'{"a":' * 126 + b"{", b"}" * 127)
    platform.deploy(function(on="go"))
    for body in (deep, b"[%b]" % deep, deep.replace(b'"name":"go"', b'"name":"go","id":"x"')):
        (event_id,) = ids(platform, body)
        assert [run["status"] for run in platform.runs(event_id)] == ["completed"]
        assert platform.event(event_id)["data"] == orjson.loads(deep)["data"]


def test_the_api_limits_nesting_in_the_same_way(platform: Platform) -> None:
    platform.deploy(function(on="go"))
    deep = b'{"replay":"r","events":%b%b}' % (b"[" * 300, b"]" * 300)
    for method, path in (
        ("POST", "/v1/functions/f/replay"),
        ("PUT", "/v1/functions/f/routing"),
        ("PUT", "/v1/webhooks/w"),
    ):
        answer = platform.http(method, path, deep)
        assert (answer.status, b"nested more than" in answer.body) == (400, True), path
    with_bom = BOM + orjson.dumps({"event": "hook"})
    assert platform.http("PUT", "/v1/webhooks/w", with_bom).status == 200
    packed = gzip.compress(orjson.dumps({"event": "hook"}))
    assert platform.http("PUT", "/v1/webhooks/w", packed, {"content-encoding": "gzip"}).status == 200
    assert platform.http("PUT", "/v1/webhooks/w", packed, {"content-encoding": "br"}).status == 415


def test_a_byte_order_mark_is_ignored(platform: Platform) -> None:
    platform.api("PUT", "/v1/webhooks/w", {"event": "hook"})
    assert len(ids(platform, BOM + b'{"name":"go"}')) == 1
    assert len(ids(platform, BOM + b'[{"name":"go"},{"name":"go"}]')) == 2
    assert len(ids(platform, BOM + orjson.dumps(cloudevent("1")), content_type="application/cloudevents+json")) == 1
    answer = platform.http("POST", "/webhooks/w", BOM + b'{"a":1}', {"content-type": "application/json"})
    assert platform.event(answer.json()["ids"][0])["data"] == {"a": 1}


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("GZip", lambda body: gzip.compress(body[:7]) + gzip.compress(body[7:])),
        ("x-gzip", lambda body: gzip.compress(body) + b"\0" * 20),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("identity", bytes),
    ],
)
def test_a_compressed_body_is_decompressed(platform: Platform, encoding: str, pack: Callable[[bytes], bytes]) -> None:
    platform.api("PUT", "/v1/webhooks/w", {"event": "hook"})
    (event_id,) = ids(platform, pack(b'{"name":"go","data":{"n":1}}'), content_encoding=encoding)
    assert platform.event(event_id)["data"] == {"n": 1}
    headers = {"content-type": "application/json", "content-encoding": encoding}
    answer = platform.http("POST", "/webhooks/w", pack(b'{"n":2}'), headers)
    assert platform.event(answer.json()["ids"][0])["data"] == {"n": 2}


@pytest.mark.parametrize(
    ("encoding", "body", "status", "words"),
    [
        ("gzip", gzip.compress(b" " * 30_000_000, mtime=0), 413, "the decompressed request has more than"),
        ("deflate", zlib.compress(b" " * 5_000_000), 413, "the decompressed request has more than"),
        ("gzip", b'{"name":"go"}', 400, "not valid gzip"),
        ("gzip", GO[:-9], 400, "ends too early"),
        ("gzip", GO + b"more", 400, "not valid gzip"),
        ("deflate", b'{"name":"go"}', 400, "not valid deflate"),
        ("gzip", gzip.compress(b'{"name"', mtime=0), 400, "not JSON"),
        ("br", b"x", 415, "'br'"),
        ("zstd", b"x", 415, "use gzip, deflate"),
        ("gzip, gzip", b"x", 415, "'gzip, gzip'"),
    ],
)
def test_a_body_that_cannot_be_decompressed_is_refused(
    platform: Platform, encoding: str, body: bytes, status: int, words: str
) -> None:
    platform.api("PUT", "/v1/webhooks/w", {"event": "hook"})
    for path in ("/e", "/webhooks/w"):
        answer = platform.http("POST", path, body, {"content-type": "application/json", "content-encoding": encoding})
        assert (answer.status, words in answer.body.decode()) == (status, True), answer.body
        assert (answer.headers.get("accept-encoding") == "gzip, deflate") is (status == 415)
    assert platform.events("go") == []

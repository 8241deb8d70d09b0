"""CloudEvents 1.0 over HTTP on `/e`: structured, in batches, and binary."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pytest
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

from tests.behaviour.words import Json, Platform, Refused, function

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
ONE: Json = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.placed", "data": {"total": 3}}


def post(platform: Platform, content: object, content_type: str = STRUCTURED, **headers: str) -> list[str]:
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    sent = {"content-type": content_type, **{name.replace("_", "-"): value for name, value in headers.items()}}
    ids: list[str] = platform.http("POST", "/e", body, sent).json()["ids"]
    return ids


def test_a_cloudevent_starts_the_function_that_its_type_names(platform: Platform) -> None:
    platform.deploy(function(on="order.placed"))
    sent = {**ONE, "time": "2026-06-01T12:00:00+02:00", "subject": "7", "user": "ada", "v": "2", "dataschema": "/s"}
    (event_id,) = post(platform, sent, f"{STRUCTURED}; charset=utf-8")
    event = platform.event(event_id)
    assert {name: event[name] for name in ("name", "user", "ts", "v")} == {
        "name": "order.placed",
        "user": {"external_id": "ada"},
        "ts": 1780308000000,
        "v": "2",
    }
    rest = {"id": "1", "source": "/shop", "subject": "7", "dataschema": "/s"}
    assert event["data"] == {"total": 3, "cloudevent": rest}
    assert [run["status"] for run in platform.runs(event_id)] == ["completed"]


def test_source_and_id_together_deduplicate_events(platform: Platform) -> None:
    first = post(platform, ONE)
    assert post(platform, ONE) == first
    assert post(platform, {**ONE, "source": "/other"}) != first
    assert len(platform.events("order.placed")) == 2


def test_a_batch_is_accepted_or_refused_as_a_whole(platform: Platform) -> None:
    assert len(post(platform, [ONE, {**ONE, "id": "2"}], BATCH)) == 2
    with pytest.raises(Refused) as refused:
        post(platform, [{**ONE, "id": "3"}, {**ONE, "id": ""}], BATCH)
    assert (refused.value.status, refused.value.errors[0]["index"]) == (400, 1)
    assert refused.value.errors[0]["pointer"] == "/id"
    assert len(platform.events("order.placed")) == 2


@pytest.mark.parametrize(
    ("body", "content_type", "data"),
    [
        (b'{"total": 3}', "application/json; charset=utf-8", {"total": 3}),
        (b'{"total": 3}', "application/vnd.shop+json", {"total": 3}),
        (b"[1]", "application/json", {"value": [1]}),
        (b"<a/>", "text/xml", {"value": "<a/>"}),
        (b"\xff\xfe", "application/octet-stream", {"base64": "//4="}),
        (b"", "application/json", {}),
    ],
)
def test_a_binary_request_has_its_attributes_in_headers(
    platform: Platform, body: bytes, content_type: str, data: Json
) -> None:
    (event_id,) = post(
        platform, body, content_type, ce_specversion="1.0", ce_id="1", ce_source="/shop", ce_type="order%2Eplaced"
    )
    event = platform.event(event_id)
    assert event["name"] == "order.placed"
    rest = {"id": "1", "source": "/shop", "datacontenttype": content_type}
    assert event["data"] == {**data, "cloudevent": rest}


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"specversion": "0.3"}, "/specversion"),
        ({"specversion": None}, "/specversion"),
        ({"source": None}, "/source"),
        ({"type": 5}, "/type"),
        ({"type": "stepwell/run.failed"}, "/name"),
        ({"time": "yesterday"}, "/time"),
        ({"time": "2026-06-01T12:00:00"}, "/time"),
        ({"data_base64": "AA=="}, "/data_base64"),
        ({"data": None, "data_base64": "?"}, "/data_base64"),
        ({"data": None, "data_base64": 5}, "/data_base64"),
        ({"ext": {"a": 1}}, "/ext"),
        ({"Bad-Name": "x"}, "/Bad-Name"),
        ({"v": 2}, "/v"),
        ({"id": "x" * 300}, "/id"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_an_invalid_cloudevent_is_refused_with_a_pointer(platform: Platform, change: Json, pointer: str) -> None:
    with pytest.raises(Refused) as refused:
        post(platform, {**ONE, **change})
    assert (refused.value.status, refused.value.errors[0]["pointer"]) == (400, pointer)
    assert platform.events() == []


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"no JSON", STRUCTURED),
        (b"[]", STRUCTURED),
        (b"{}", BATCH),
        (b"[]", BATCH),
        (b"{}", "application/cloudevents+avro"),
        (b'{"data": {"n": 123456789012345678901234567890}}', STRUCTURED),
        (b"[" * 100_000, STRUCTURED),
    ],
)
def test_a_body_that_is_not_a_cloudevent_is_refused(platform: Platform, body: bytes, content_type: str) -> None:
    with pytest.raises(Refused) as refused:
        post(platform, body, content_type)
    assert refused.value.status == 400


def test_the_requests_of_the_cloudevents_sdk_are_accepted(platform: Platform) -> None:
    moment = datetime(2026, 6, 1, 10, tzinfo=UTC)
    attributes = {"id": "a", "source": "/sdk", "type": "order.placed", "specversion": "1.0", "time": moment}
    event = CloudEvent({**attributes, "datacontenttype": "application/json", "user": "ada"}, {"total": 3})
    ids = []
    for message in (to_structured_event(event), to_binary_event(event)):
        headers = {name.lower(): value for name, value in message.headers.items()}
        body = message.body if isinstance(message.body, bytes) else str(message.body).encode()
        ids += platform.http("POST", "/e", body, headers).json()["ids"]
    assert len(set(ids)) == 1, "structured and binary mode give the same event id"
    stored = platform.event(ids[0])
    assert (stored["data"]["total"], stored["user"], stored["ts"]) == (3, {"external_id": "ada"}, 1780308000000)

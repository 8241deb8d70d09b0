"""`POST /e` on AWS: requests of API Gateway, the answers, and the events on the bus or in the queue."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from stepwell.api.access import KeyScope
from stepwell.aws import clients
from stepwell.aws.api.ingest import Ingest, ingest_of
from stepwell.aws.api.keys import KeyStore
from stepwell.aws.clients import client
from stepwell.aws.queues.event_messages import read_incoming_event
from stepwell.aws.resources import Resources
from stepwell.platform import Cause, IncomingEvent

Json = dict[str, Any]


@pytest.fixture
def key(resources: Resources) -> str:
    return KeyStore(resources).create(KeyScope.SEND, "web", 1)[1]


@pytest.fixture(params=["bus", "direct"])
def ingest(resources: Resources, request: pytest.FixtureRequest) -> Ingest:
    """All events on the bus go to the queue."""
    if request.param == "bus":
        events = client("events")
        pattern = json.dumps({"source": [{"prefix": ""}]})
        events.put_rule(Name="all", EventBusName=resources.bus, EventPattern=pattern)
        target = {"Id": "queue", "Arn": resources.events_queue_arn}
        events.put_targets(Rule="all", EventBusName=resources.bus, Targets=[target])
    return ingest_of(replace(resources, ingest=request.param))


def http(path: str, body: str | bytes | None = "", method: str = "POST", **headers: str) -> Json:
    """A request in the format of API Gateway (payload format 2.0)."""
    request: Json = {
        "version": "2.0",
        "rawPath": path,
        "headers": {name.replace("_", "-"): value for name, value in headers.items()},
        "requestContext": {"http": {"method": method, "path": path}},
        "isBase64Encoded": isinstance(body, bytes),
    }
    if body is not None:
        request["body"] = base64.b64encode(body).decode() if isinstance(body, bytes) else body
    return request


def accepted(answer: Json) -> list[str]:
    assert (answer["statusCode"], answer["headers"]["content-type"]) == (200, "application/json"), answer
    body = json.loads(answer["body"])
    assert body == {"ids": body["ids"], "status": 200}
    return list(body["ids"])


def refused(answer: Json, status: int) -> Json:
    assert (answer["statusCode"], answer["headers"]["content-type"]) == (status, "application/problem+json"), answer
    problem: Json = json.loads(answer["body"])
    assert problem["status"] == status
    return problem


def queued(resources: Resources) -> Iterator[Json]:
    """The events in the queue, read in the same way as by route."""
    while (
        messages := client("sqs")
        .receive_message(QueueUrl=resources.events_queue, MaxNumberOfMessages=10)
        .get("Messages")
    ):
        for message in messages:
            arrival = read_incoming_event(json.loads(message["Body"]), Cause("m", redelivered=False), 0)
            assert isinstance(arrival, IncomingEvent)
            yield arrival.event.as_json()
            client("sqs").delete_message(QueueUrl=resources.events_queue, ReceiptHandle=message["ReceiptHandle"])


# --- what is accepted ------------------------------------------------------------------------------------------------


def test_an_event_is_in_the_queue_as_it_was_sent(ingest: Ingest, key: str, resources: Resources) -> None:
    event = {
        "name": "user/é",
        "data": {"text": '"\\\n\ufffe\uffff😀', "n": 2**53 + 1},
        "user": {"id": 7},
        "ts": 5,
        "v": "1",
    }
    (event_id,) = accepted(ingest(http(f"/e/{key}", json.dumps(event))))
    assert list(queued(resources)) == [{**event, "id": event_id}]


def test_an_id_of_the_sender_is_kept(ingest: Ingest, key: str, resources: Resources) -> None:
    assert accepted(ingest(http(f"/e/{key}", '{"name": "a", "id": "order/17"}'))) == ["order/17"]
    assert [event["id"] for event in queued(resources)] == ["order/17"]


def test_a_body_may_be_in_base64(ingest: Ingest, key: str, resources: Resources) -> None:
    ids = accepted(ingest(http(f"/e/{key}", '{"name": "é"}'.encode())))
    assert [(event["id"], event["name"]) for event in queued(resources)] == [(ids[0], "é")]


def test_a_key_may_be_a_bearer_token_instead(ingest: Ingest, key: str) -> None:
    assert accepted(ingest(http("/e", '{"name": "a"}', authorization=f"Bearer {key}")))
    assert accepted(ingest(http("/e/", '{"name": "a"}', authorization=f"Bearer {key}")))


def test_many_events_are_sent_in_batches_and_none_is_lost(ingest: Ingest, key: str, resources: Resources) -> None:
    events = [{"name": "many", "data": {"n": n}} for n in range(230)]
    ids = accepted(ingest(http(f"/e/{key}", json.dumps(events))))
    found = {event["id"]: event["data"]["n"] for event in queued(resources)}
    assert found == {event_id: n for n, event_id in enumerate(ids)}


def test_events_of_the_largest_size_are_accepted_together(ingest: Ingest, key: str, resources: Resources) -> None:
    events = [{"name": "large", "data": {"text": "ä" * 125_000}} for _ in range(8)]
    ids = accepted(ingest(http(f"/e/{key}", json.dumps(events, ensure_ascii=False))))
    assert sorted(event["id"] for event in queued(resources)) == sorted(ids)


def test_a_name_may_be_longer_than_a_detail_type(ingest: Ingest, key: str, resources: Resources) -> None:
    accepted(ingest(http(f"/e/{key}", json.dumps({"name": "n" * 256}))))
    assert [event["name"] for event in queued(resources)] == ["n" * 256]


# --- what is refused -------------------------------------------------------------------------------------------------


def test_an_unknown_key_is_refused(ingest: Ingest, resources: Resources) -> None:
    for request in (
        http("/e/nothing", '{"name": "a"}'),
        http("/e", '{"name": "a"}'),
        http("/e", "{", authorization="Basic x"),
    ):
        answer = ingest(request)
        assert "stepwell keys create" in refused(answer, 401)["message"]
        assert answer["headers"]["www-authenticate"] == "Bearer"
    assert list(queued(resources)) == []


def test_every_error_is_told_and_nothing_is_accepted(ingest: Ingest, key: str, resources: Resources) -> None:
    problem = refused(ingest(http(f"/e/{key}", '[{"name": "a"}, {"name": ""}, {"name": "stepwell/x"}]')), 400)
    assert [(error["index"], error["pointer"]) for error in problem["errors"]] == [(1, "/name"), (2, "/name")]
    assert list(queued(resources)) == []


@pytest.mark.parametrize("body", ["", None, "{", "7", "[]", '{"name": "a", "data": 1}'])
def test_what_is_no_event_is_refused(ingest: Ingest, key: str, body: str | None) -> None:
    refused(ingest(http(f"/e/{key}", body)), 400)


def test_a_body_above_4_mb_is_too_large(ingest: Ingest, key: str) -> None:
    refused(ingest(http(f"/e/{key}", "[" + " " * 4 * 1024 * 1024 + "]")), 413)
    refused(ingest(http(f"/e/{key}", json.dumps({"name": "a", "data": {"text": "x" * 270_000}}))), 413)


def test_a_broken_body_is_refused(ingest: Ingest, key: str) -> None:
    refused(ingest({**http(f"/e/{key}", "x"), "isBase64Encoded": True}), 400)


def test_other_methods_are_refused(ingest: Ingest, key: str) -> None:
    answer = ingest(http(f"/e/{key}", method="GET"))
    refused(answer, 405)
    assert answer["headers"]["allow"] == "POST, OPTIONS"


# --- browsers --------------------------------------------------------------------------------------------------------


def test_pages_of_any_site_may_send(ingest: Ingest, key: str) -> None:
    asked = ingest(http(f"/e/{key}", None, method="OPTIONS", origin="https://example.com"))
    assert (asked["statusCode"], asked["body"]) == (204, "")
    sent = ingest(http(f"/e/{key}", '{"name": "a"}', origin="https://example.com"))
    no = ingest(http("/e/nothing", '{"name": "a"}', origin="https://example.com"))
    for answer in (asked, sent, no):
        assert answer["headers"]["access-control-allow-origin"] == "*"
        assert "authorization" in answer["headers"]["access-control-allow-headers"]
    assert "access-control-allow-origin" not in ingest(http(f"/e/{key}", '{"name": "a"}'))["headers"]


def test_it_answers_browsers_as_the_local_server_does(ingest: Ingest) -> None:
    from stepwell.api.asgi import _CORS

    asked = ingest(http("/e/x", None, method="OPTIONS", origin="https://example.com"))
    assert asked["headers"] == {name.decode(): value.decode() for name, value in _CORS}


# --- what fails ------------------------------------------------------------------------------------------------------


def refuse_entries(service: str, event: str, answer: Callable[[list[Any]], Json]) -> list[int]:
    """Makes AWS refuse some entries. Returns the numbers of the entries in each request."""
    asked: list[int] = []

    def respond(params: Json, **_: Any) -> Any:
        entries = json.loads(params["body"])["Entries"]
        asked.append(len(entries))
        return _Ok(), answer(entries)

    client(service).meta.events.register(f"before-call.{event}", respond)
    return asked


class _Ok:
    status_code = 200


def test_entries_that_the_bus_refused_are_sent_again_alone(resources: Resources, key: str) -> None:
    ingest = ingest_of(resources)

    def answer(entries: list[Any]) -> Json:
        refuses = len(entries) // 2
        bad = [{"ErrorCode": "ThrottlingException", "ErrorMessage": "slow"}] * refuses
        return {"FailedEntryCount": refuses, "Entries": [*bad, *[{"EventId": "x"}] * (len(entries) - refuses)]}

    asked = refuse_entries("events", "eventbridge.PutEvents", answer)
    accepted(ingest(http(f"/e/{key}", json.dumps([{"name": "a"}] * 4))))
    assert asked == [4, 2, 1]


def test_events_that_cannot_be_sent_on_are_not_accepted(
    resources: Resources, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    for mode, service, event in (("bus", "events", "eventbridge.PutEvents"), ("direct", "sqs", "sqs.SendMessageBatch")):
        clients.reset()
        ingest = ingest_of(replace(resources, ingest=mode))

        def answer(entries: list[Any]) -> Json:
            codes = [{"ErrorCode": "InternalFailure", "Id": str(n), "Code": "x"} for n in range(len(entries))]
            return {"FailedEntryCount": len(entries), "Entries": codes, "Failed": codes}

        asked = refuse_entries(service, event, answer)
        answered = ingest(http(f"/e/{key}", '{"name": "a"}'))
        assert "send them again" in refused(answered, 503)["message"]
        assert answered["headers"]["retry-after"] == "1"
        assert len(asked) > 2


def test_a_queue_that_is_not_there_is_a_503(resources: Resources, key: str) -> None:
    ingest = ingest_of(replace(resources, ingest="direct", events_queue=resources.events_queue + "-gone"))
    refused(ingest(http(f"/e/{key}", '{"name": "a"}')), 503)


@pytest.mark.parametrize(("code", "status"), [("ThrottlingException", 503), ("AccessDeniedException", None)])
def test_who_sends_while_types_cannot_be_read_for_throttling_is_asked_to_send_again(
    resources: Resources, key: str, monkeypatch: pytest.MonkeyPatch, code: str, status: int | None
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    ingest = ingest_of(resources)
    accepted(ingest(http(f"/e/{key}", '{"name": "a"}')))  # the key is cached from now on
    refuse = {"Error": {"Code": code, "Message": "no"}}

    class Refusal:
        status_code = 400

    clients.reset()
    client("dynamodb").meta.events.register("before-call.dynamodb.GetItem", lambda **_: (Refusal(), refuse))
    again = ingest_of(resources)
    request = http(f"/e/{key}", '{"name": "a"}')
    if status is None:
        with pytest.raises(ClientError):
            again(request)
        return
    answered = again(request)
    assert "try again" in refused(answered, status)["message"]
    assert answered["headers"]["retry-after"] == "1"


# --- cold starts -----------------------------------------------------------------------------------------------------


def test_a_cold_start_loads_no_more_than_it_needs() -> None:
    names = ["pydantic", "starlette", "cel_expr_python", "httpx", "asyncio", "mangum", "stepwell.engine", "yaml"]
    code = f"import sys, stepwell.aws.api.ingest; print([n for n in {names} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

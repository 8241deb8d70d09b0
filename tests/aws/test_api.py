"""`/v1` on AWS: requests of API Gateway, answered from items that the real engine wrote."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest

from stepwell.api.access import KeyScope
from stepwell.aws.api import app as module
from stepwell.aws.api.app import api_of
from stepwell.aws.api.keys import KeyStore
from stepwell.testing.batches import Batches, Json, handler_step
from tests.aws.test_sweep import failing


class Api:
    def __init__(self, batches: Batches) -> None:
        self.handle = api_of(replace(batches.resources, cache_s=0, keys_cache_s=0), lambda: batches.control)
        self.key = KeyStore(batches.resources).create(KeyScope.MANAGE, "test", 1)[1]

    def answer(
        self, path: str, method: str = "GET", key: str | None = None, headers: Json | None = None, **query: Any
    ) -> Json:
        context = {"method": method, "path": path, "sourceIp": "127.0.0.1", "protocol": "HTTP/1.1"}
        request = {
            "version": "2.0",
            "rawPath": path,
            "rawQueryString": urlencode(query),
            "headers": {"host": "x.execute-api", "authorization": f"Bearer {key or self.key}", **(headers or {})},
            "requestContext": {"http": context},
            "isBase64Encoded": False,
        }
        return self.handle(request, None)

    def ask(self, path: str, method: str = "GET", expected: int = 200, **query: Any) -> Any:
        answer = self.answer(path, method, **query)
        assert answer["statusCode"] == expected, answer
        assert not answer["isBase64Encoded"]
        kind = "application/json" if expected < 400 else "application/problem+json"
        assert answer["headers"]["content-type"] == kind
        return json.loads(answer["body"])


@pytest.fixture
def api(batches: Batches) -> Api:
    return Api(batches)


def test_a_run_can_be_read_listed_and_run_again(api: Api, batches: Batches) -> None:
    batches.deploy({"a": handler_step()})
    event_id = batches.send("go", {"n": 1}, id="order/17", user={"id": 1})
    batches.drain()
    (run,) = api.ask("/v1/runs", function="f", user="1")["data"]
    assert (run["status"], run["output"], run["event_id"]) == ("completed", {"a": {"ok": "a"}}, event_id)
    assert api.ask(f"/v1/runs/{run['id']}")["steps"]["a"]["attempts"][0]["logs"] == ""
    assert [item["id"] for item in api.ask("/v1/events/order/17/runs")["data"]] == [run["id"]]
    assert api.ask("/v1/events/order/17")["data"] == {"n": 1}
    assert [function["id"] for function in api.ask("/v1/functions")["data"]] == ["f"]
    again = api.ask(f"/v1/runs/{run['id']}/rerun", "POST", 201)
    assert again["rerun_of"] == run["id"]
    assert [item["id"] for item in api.ask("/v1/runs")["data"]] == [again["id"], run["id"]]


def test_a_run_is_cancelled_at_once_and_but_once(api: Api, batches: Batches) -> None:
    batches.deploy({"a": handler_step({"step": "$trigger", "wait": "1h"})})
    batches.send()
    batches.drain()
    (run,) = api.ask("/v1/runs", status="running")["data"]
    for _ in range(2):
        assert api.ask(f"/v1/runs/{run['id']}", "DELETE")["status"] == "cancelled"
    assert api.ask("/v1/runs", status="running")["data"] == []


def test_a_run_that_has_ended_cannot_be_cancelled(api: Api, batches: Batches) -> None:
    batches.deploy({"a": handler_step()})
    batches.send()
    batches.drain()
    (run,) = api.ask("/v1/runs")["data"]
    assert "completed" in api.ask(f"/v1/runs/{run['id']}", "DELETE", 409)["detail"]


def test_what_could_not_be_written_is_a_503_and_can_be_asked_again(api: Api, batches: Batches) -> None:
    batches.deploy({"a": handler_step({"step": "$trigger", "wait": "1h"})})
    batches.send()
    batches.drain()
    (run,) = api.ask("/v1/runs")["data"]
    with failing("dynamodb", "PutItem", "ProvisionedThroughputExceededException"):
        assert "try again" in api.ask(f"/v1/runs/{run['id']}", "DELETE", 503)["detail"]
        assert "try again" in api.ask(f"/v1/runs/{run['id']}/rerun", "POST", 503)["detail"]
    assert api.ask(f"/v1/runs/{run['id']}")["status"] == "running"
    assert api.ask(f"/v1/runs/{run['id']}", "DELETE")["status"] == "cancelled"
    assert api.ask(f"/v1/runs/{run['id']}/rerun", "POST", 201)["rerun_of"] == run["id"]


def test_pages_follow_each_other_by_their_cursors(api: Api, batches: Batches) -> None:
    sent = []
    for _ in range(5):
        sent.append(batches.send())
        batches.drain()
    found = []
    query: Json = {"limit": 2}
    while True:
        page = api.ask("/v1/events", **query)
        found += [event["id"] for event in page["data"]]
        if page["next"] is None:
            break
        query["after"] = page["next"]
    assert found == sent[::-1]


def test_keys_are_needed_but_for_what_anybody_may_know(api: Api, batches: Batches) -> None:
    send = KeyStore(batches.resources).create(KeyScope.SEND, "web", 1)[1]
    assert api.answer("/v1/runs", key=send)["statusCode"] == 403
    assert api.answer("/v1/runs", key="nothing")["statusCode"] == 401
    assert api.answer("/healthz", key="nothing")["statusCode"] == 200
    assert json.loads(api.answer("/openapi.json", key="nothing")["body"])["openapi"].startswith("3.1")


def test_what_is_not_there_is_a_404(api: Api) -> None:
    for path in ("/v1/runs/x", "/v1/events/x", "/v1/functions/x", "/v2", "/"):
        api.ask(path, expected=404)


def test_a_large_answer_is_compressed_for_who_takes_that(api: Api, batches: Batches) -> None:
    batches.send("go", {"text": "x" * 200_000})
    batches.drain()
    answer = api.answer("/v1/events", headers={"accept-encoding": "gzip, deflate"})
    assert (answer["isBase64Encoded"], answer["headers"]["content-encoding"]) == (True, "gzip")
    assert len(answer["body"]) < 10_000
    assert json.loads(gzip.decompress(base64.b64decode(answer["body"])))["data"][0]["data"]["text"] == "x" * 200_000
    assert len(api.ask("/v1/events")["data"]) == 1


def test_an_answer_that_aws_does_not_let_through_says_so(
    api: Api, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches.send("go", {"text": "x" * 5000})
    batches.drain()
    monkeypatch.setattr(module, "_MOST_BYTES", 5000)
    assert "limit=" in api.ask("/v1/events", expected=500)["detail"]

"""HTTP details of the API: slashes, methods, browsers, and requests that are refused before the body is read."""

from __future__ import annotations

import orjson
import pytest

from tests.behaviour.words import Platform, function

EVENT = b'{"name": "go"}'
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize("path", ["/e/key/", "/e/key//", "/e/"])
def test_events_can_be_sent_to_a_path_with_a_trailing_slash(platform: Platform, path: str) -> None:
    platform.deploy(function())
    key = _key_in(platform, path)
    answer = platform.http("POST", key, EVENT, JSON)
    assert answer.status == 200, answer.body
    (event_id,) = answer.json()["ids"]
    (run,) = platform.runs(event_id)
    assert run["status"] == "completed"


def _key_in(platform: Platform, path: str) -> str:
    key = getattr(platform, "_key", "any")  # a local server without keys accepts any key
    return path.replace("key", key)


def test_webhooks_can_be_sent_to_a_path_with_a_trailing_slash(platform: Platform) -> None:
    platform.api("PUT", "/v1/webhooks/shop", {"event": "hook"})
    answer = platform.http("POST", "/webhooks/shop/", b'{"a": 1}', {**JSON, "authorization": "none"})
    assert answer.status == 200, answer.body
    (event_id,) = answer.json()["ids"]
    assert platform.event(event_id)["data"] == {"a": 1}


@pytest.mark.parametrize("host", ["evil.example", "stepwell"])
def test_a_trailing_slash_never_redirects_to_a_host_that_the_client_chose(platform: Platform, host: str) -> None:
    for path in ("/v1/runs/", "/v1/functions/", "/v1/runs//", "/v1/events/", "/v1/webhooks/?limit=5"):
        answer = platform.http("GET", path, headers={"host": host})
        assert answer.status in (200, 400), (path, answer.body)
        assert "location" not in answer.headers
    assert platform.http("GET", "//evil.example/..", headers={"host": host}).status == 404
    assert platform.api("GET", "/v1/runs/?limit=1") == platform.api("GET", "/v1/runs?limit=1")


def test_head_is_supported_wherever_get_is(platform: Platform) -> None:
    platform.api("PUT", "/v1/webhooks/shop", {"event": "hook"})
    for path in ("/healthz", "/openapi.json", "/v1/runs", "/v1/webhooks/shop", "/webhooks/shop"):
        got, head = platform.http("GET", path), platform.http("HEAD", path)
        assert (got.status, head.status) == (200, 200), path
        assert head.headers["content-type"] == got.headers["content-type"]
    assert platform.http("HEAD", "/v1/runs/nothing").status == 404


def test_senders_can_check_whether_a_webhook_exists(platform: Platform) -> None:
    platform.api("PUT", "/v1/webhooks/shop", {"event": "hook"})
    for method in ("GET", "HEAD"):
        for path in ("/webhooks/shop", "/webhooks/shop/", "/webhooks/shop?probe=1"):
            assert platform.http(method, path, headers={"authorization": "none"}).status == 200
        assert platform.http(method, "/webhooks/none", headers={"authorization": "none"}).status == 404
    assert platform.events("hook") == []


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "DELETE", "PATCH"])
def test_only_post_delivers_to_a_webhook(platform: Platform, method: str) -> None:
    platform.api("PUT", "/v1/webhooks/shop", {"event": "hook"})
    assert platform.http(method, "/webhooks/shop", headers={"origin": "https://a.example"}).status in (404, 405)


@pytest.mark.parametrize(
    "asked",
    ["content-type", "content-type,x-inngest-sdk,x-inngest-env,traceparent", "Baggage, sentry-trace", "x-" + "a" * 500],
)
def test_cors_allows_every_requested_header(platform: Platform, asked: str) -> None:
    headers = {
        "origin": "https://shop.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": asked,
    }
    answer = platform.http("OPTIONS", "/e/key", headers=headers)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-headers"] == asked
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-request-headers" in answer.headers["vary"]


def test_cors_does_not_repeat_invalid_header_names(platform: Platform) -> None:
    for asked in ("<script>", 'a"b', "x" * 5000):
        headers = {"origin": "https://shop.example", "access-control-request-headers": asked}
        answer = platform.http("OPTIONS", "/e/key", headers=headers)
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (204, "*")
        assert asked not in answer.headers["access-control-allow-headers"]


def test_an_unknown_webhook_is_refused_before_the_body_is_read(platform: Platform) -> None:
    answer = platform.http("POST", "/webhooks/none", b"x" * 4_500_000, JSON)
    assert answer.status == 404
    assert orjson.loads(answer.body)["error"] == "not_found"


def test_the_openapi_document_is_the_same_each_time(platform: Platform) -> None:
    first, second = (platform.http("GET", "/openapi.json") for _ in range(2))
    assert first.status == 200
    assert first.body == second.body

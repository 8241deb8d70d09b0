"""Steps that are HTTP requests: what is sent, and how the response is read."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from tests.behaviour.web import Answer, Site
from tests.behaviour.words import Json, Platform, Refused, function


def step(url: str, headers: dict[str, str] | None = None, **fields: Any) -> Json:
    return {"path": "", "runtime": {"type": "http", "url": url, "headers": headers or {}}, **fields}


def run_it(platform: Platform, definition: Json, travel: str | None = None, **event: Any) -> Json:
    """Deploys a function, sends an event, and returns the step `a` when it has ended."""
    platform.deploy(definition)
    return run_again(platform, travel, **event)


def run_again(platform: Platform, travel: str | None = None, **event: Any) -> Json:
    """Sends an event to the deployed function, and returns the step `a` when it has ended."""
    event_id = platform.send(**event)
    if travel is not None:
        platform.travel(travel)
    (run,) = platform.runs(event_id)
    return dict(run["steps"]["a"])


def test_the_input_is_posted_and_the_response_is_the_output(platform: Platform, site: Site) -> None:
    site.answers = [Answer(body=b'{"n": 1}')]
    done = run_it(platform, function({"a": step(f"{site.url}/hook?x=1")}), data={"text": "ü"})
    assert (done["status"], done["output"]) == ("completed", {"n": 1})
    (request,) = site.requests
    assert (request.method, request.path) == ("POST", "/hook?x=1")
    assert {"content-type": "application/json"}.items() <= request.headers.items()
    document = json.loads(request.body)
    assert set(document) == {"event", "steps", "errors", "async", "ctx"}
    assert document["event"]["data"] == {"text": "ü"}


ANSWERS: list[tuple[bytes, Any, str]] = [
    (b"[1, 2]", [1, 2], ""),
    (b"", {"body": ""}, ""),
    (b"hello\n", {"body": "hello"}, ""),
    (b'working\n{"n": 1}\n', {"n": 1}, "working\n"),
    (b"\xff\x00", {"body": "\ufffd\x00"}, ""),
    (b"340434161094042557123", {"body": "340434161094042557123"}, ""),
    (b"0.1", 0.1, ""),
]


def test_a_response_is_parsed_like_the_stdout_of_a_program(platform: Platform, site: Site) -> None:
    platform.deploy(function({"a": step(site.url)}))
    for body, output, logged in ANSWERS:
        site.answers = [Answer(body=body)]
        done = run_again(platform)
        assert (done["output"], done["attempts"][0]["logs"]) == (output, logged), body


def test_a_response_of_100_mb_is_a_final_failure(platform: Platform, site: Site) -> None:
    site.answers = [Answer(body=b"x" * 100_000_000)]
    done = run_it(platform, function({"a": step(site.url, retries={"attempts": 1})}))
    assert (done["error"]["kind"], len(done["attempts"])) == ("output_too_large", 1)


def test_a_response_can_be_chunked(platform: Platform, site: Site) -> None:
    site.answers = [Answer(body=b"3\r\n[1,\r\n3\r\n 2]\r\n0\r\n\r\n", headers={"Transfer-Encoding": "chunked"})]
    assert run_it(platform, function({"a": step(site.url)}))["output"] == [1, 2]


STATUSES: list[tuple[int, str, int]] = [
    (200, "completed", 1), (201, "completed", 1), (202, "completed", 1),
    (400, "failed", 1), (401, "failed", 1), (404, "failed", 1), (410, "failed", 1), (422, "failed", 1),
    (408, "failed", 2), (425, "failed", 2), (429, "failed", 2), (500, "failed", 2), (503, "failed", 2),
    (599, "failed", 2),
]  # fmt: skip


def test_a_status_from_400_on_is_a_failure(platform: Platform, site: Site) -> None:
    platform.deploy(function({"a": step(site.url, retries={"attempts": 1})}))
    for status, ends, attempts in STATUSES:
        site.answers = [Answer(status, b'{"message": "no such order"}')]
        done = run_again(platform, travel="1h")
        assert (done["status"], len(done["attempts"])) == (ends, attempts), status
        if ends == "failed":
            assert done["error"]["status"] == status
            assert done["error"]["output"] == {"message": "no such order"}
            assert "no such order" in done["error"]["message"]


def test_a_status_in_the_body_counts_too(platform: Platform, site: Site) -> None:
    site.answers = [Answer(200, b'{"status": 404}')]
    done = run_it(platform, function({"a": step(site.url, retries={"attempts": 1})}))
    assert (done["status"], done["error"]["status"], len(done["attempts"])) == ("failed", 404, 1)


@pytest.mark.kind("an attempt may call twice")
@pytest.mark.parametrize(
    ("status", "headers", "body", "early", "late"),
    [
        (503, {"Retry-After": "120"}, b"", "1m59s", "2s"),
        (429, {"Retry-After": "7200"}, b"", "1h59m", "2m"),
        (503, {}, b'{"retry_after": 300}', "4m59s", "2s"),
        (503, {"Retry-After": "60"}, b'{"retry_after": "5m"}', "4m59s", "2s"),  # the body overrides the header
        (503, {"Retry-After": "soon"}, b"", "8s", "4s"),  # invalid, so the backoff of 10 s applies
    ],
)
def test_retry_after_sets_the_delay(
    platform: Platform, site: Site, status: int, headers: dict[str, str], body: bytes, early: str, late: str
) -> None:
    site.answers = [Answer(status, body, headers), Answer()]
    platform.deploy(function({"a": step(site.url, retries={"attempts": 1})}))
    event_id = platform.send()
    platform.travel(early)
    (run,) = platform.runs(event_id)
    assert run["steps"]["a"]["status"] == "retrying"
    platform.travel(late)
    (run,) = platform.runs(event_id)
    assert (run["status"], len(site.requests)) == ("completed", 2)


@pytest.mark.kind("an attempt may call twice")
@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308, 399])
def test_redirects_are_not_followed_and_are_final_failures(platform: Platform, site: Site, status: int) -> None:
    site.answers = [Answer(status, b"moved", {"Location": f"{site.url}/elsewhere", "Retry-After": "1"}), Answer()]
    done = run_it(platform, function({"a": step(site.url, retries={"attempts": 2})}), travel="1h")
    assert (done["status"], done["error"]["kind"], done["error"]["status"]) == ("failed", "http", status)
    assert f"a redirect to {site.url}/elsewhere" in done["error"]["message"]
    assert [request.path for request in site.requests] == ["/"]
    assert done["attempts"][0]["logs"].strip() == "moved"


@pytest.mark.kind("an attempt may call twice")
@pytest.mark.parametrize("status", [304, 305, 302])
def test_a_redirect_to_nowhere_is_a_final_failure(platform: Platform, site: Site, status: int) -> None:
    site.answers = [Answer(status, b""), Answer()]
    done = run_it(platform, function({"a": step(site.url, retries={"attempts": 2})}), travel="1h")
    assert (done["status"], len(site.requests)) == ("failed", 1)
    assert f"status {status}" in done["error"]["message"]


def test_a_3xx_status_in_the_body_is_not_a_failure(platform: Platform, site: Site) -> None:
    site.answers = [Answer(200, b'{"status": 302}')]
    done = run_it(platform, function({"a": step(site.url)}))
    assert (done["status"], done["output"]) == ("completed", {"status": 302})


def test_cookies_are_not_kept(platform: Platform, site: Site) -> None:
    site.answers = [Answer(headers={"Set-Cookie": "a=b; Path=/"})]
    platform.deploy(function({"a": step(site.url), "b": step(site.url, after=[{"step": "a"}])}))
    platform.runs(platform.send())
    assert ["cookie" in request.headers for request in site.requests] == [False, False]


def test_headers_can_use_variables_and_secrets(platform: Platform, site: Site) -> None:
    platform.secret("TOKEN", "s3cret")
    headers = {"Authorization": "Bearer ${TOKEN}", "X-Stage": "${STAGE}", "Content-Type": "application/x"}
    definition = function({"a": step(site.url, headers, env={"STAGE": "test"}, secrets=["TOKEN"])})
    assert run_it(platform, definition)["status"] == "completed"
    sent = site.requests[0].headers
    assert (sent["authorization"], sent["x-stage"]) == ("Bearer s3cret", "test")
    assert sent["content-type"] == "application/x"


def test_the_request_contains_the_attempts_number(platform: Platform, site: Site) -> None:
    site.answers = [Answer(503), Answer()]
    run_it(platform, function({"a": step(site.url, retries={"attempts": 1})}), travel="1h")
    first, second = (json.loads(request.body)["ctx"] for request in site.requests)
    assert (first.pop("attempt"), second.pop("attempt")) == (1, 2)
    assert first == second


def test_a_timeout_is_retried(platform: Platform, site: Site) -> None:
    site.hold.clear()
    definition = function({"a": step(site.url, timeout="150ms", retries={"attempts": 1})})
    done = run_it(platform, definition, travel="1h")
    assert [attempt["error"]["kind"] for attempt in done["attempts"]] == ["timeout", "timeout"]


def test_cancelling_aborts_the_request(platform: Platform, site: Site) -> None:
    site.hold.clear()
    platform.deploy(function({"a": step(site.url)}))
    run_id = platform.run_of(platform.send())
    site.wait_for(1)
    platform.cancel(run_id)
    platform.settle()
    assert platform.run(run_id)["status"] == "cancelled"


def test_a_refused_connection_is_retried(platform: Platform) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # a port on which no server listens
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        done = run_it(platform, function({"a": step(url, retries={"attempts": 2})}), travel="3h")
    assert (done["status"], len(done["attempts"])) == ("failed", 3)
    assert url in done["error"]["message"]


def test_a_broken_connection_is_retried(platform: Platform, site: Site) -> None:
    site.answers = [Answer(body=b"half", headers={"Content-Length": "8", "Connection": "close"}), Answer()]
    done = run_it(platform, function({"a": step(site.url, retries={"attempts": 1})}), travel="1h")
    assert [attempt["status"] for attempt in done["attempts"]] == ["failed", "completed"]


@pytest.mark.parametrize("url", ["", "ftp://x.org", "localhost", "http://", "file:///etc/passwd", "http://a b/"])
def test_an_invalid_url_is_refused(platform: Platform, url: str) -> None:
    with pytest.raises(Refused):
        platform.deploy(function({"a": step(url)}))

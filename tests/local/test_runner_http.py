"""Steps that call a URL, against a real server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from stepwell.core.plan import Runtime
from stepwell.core.run.messages import Error, Outcome
from stepwell.local.runners.job import Job
from tests.local.attempts import INPUT, Start, job, on_runners, run


class _Server(ThreadingHTTPServer):
    """Answers every request with the result of `answer`, and records the requests."""

    daemon_threads = True
    answer: tuple[int, dict[str, str], bytes] = (200, {}, b"{}")
    is_slow = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.arrived, self.go_on = threading.Event(), threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook"


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        self.server.arrived.set()
        if self.server.is_slow:
            self.server.go_on.wait(20)
        status, headers, answer = self.server.answer
        try:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)
        except OSError:
            pass  # the client is gone

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.go_on.set()
        server.shutdown()
        thread.join()


def call(server: _Server, **options: Any) -> Job:
    headers = tuple(options.pop("headers", {}).items())
    return job(None, Runtime("http", url=server.url, headers=headers), **options)


def test_the_input_is_posted_and_the_answer_is_the_output(server: _Server) -> None:
    server.answer = (200, {"content-type": "text/plain"}, b'{"a": 1}')
    assert run(call(server)).output == {"a": 1}
    ((path, headers, body),) = server.requests
    assert (path, body) == ("/hook", INPUT)
    assert headers["content-type"] == "application/json"
    assert headers["idempotency-key"] == "run-1/step-1"


def test_headers_are_sent_with_variables_and_secrets_in_them(server: _Server) -> None:
    headers = {"Authorization": "Bearer ${TOKEN}", "Content-Type": "application/x", "X-Odd": "${NO} $HOME"}
    attempt = run(call(server, headers=headers, env={"TOKEN": "t0ken"}))
    sent = server.requests[0][1]
    assert (sent["authorization"], sent["content-type"]) == ("Bearer t0ken", "application/x")
    assert sent["x-odd"] == "${NO} $HOME"
    assert attempt.log("system") == "the header X-Odd names ${NO}, which is neither in env nor in secrets\n"


def test_a_header_that_cannot_be_sent_does_not_show_the_secret(server: _Server) -> None:
    attempt = run(call(server, headers={"Authorization": "${TOKEN}"}, env={"TOKEN": "s3cret\nx"}))
    kind, retryable, message = attempt.error
    assert (kind, retryable) == ("start", False)
    assert "Authorization" in message
    assert "s3cret" not in message + attempt.log()


@pytest.mark.parametrize(
    ("answer", "outcome", "log"),
    [
        ((204, {}, b""), Outcome(output=b'{"body":""}'), ""),
        ((200, {}, b"log\n[1]"), Outcome(output=b"[1]"), "log\n"),
        ((200, {}, b"text\n"), Outcome(output=b'{"body":"text"}'), ""),
        (
            (302, {"location": "http://x"}, b"moved\n"),
            Outcome(
                None,
                Error(
                    "http",
                    "the response has status 302, a redirect to http://x; redirects are not followed, so correct the"
                    " step's url: moved",
                    302,
                ),
                False,
            ),
            "moved\n",
        ),
        (
            (304, {"retry-after": "7"}, b""),
            Outcome(None, Error("http", "the response has status 304, which is not a success", 304), False),
            "",
        ),
        ((404, {}, b"no\n"), Outcome(None, Error("http", "the response has status 404: no", 404), False), "no\n"),
        (
            (503, {"Retry-After": "7"}, b'{"a": 1}'),
            Outcome(None, Error("http", "the response has status 503", 503, b'{"a":1}'), True, 7000),
            "",
        ),
    ],
)
def test_an_answer_is_read_like_stdout(
    server: _Server, answer: tuple[int, dict[str, str], bytes], outcome: Outcome, log: str
) -> None:
    server.answer = answer
    attempt = run(call(server))
    assert (attempt.outcome, attempt.log()) == (outcome, log)


def test_an_answer_that_is_too_large_is_refused(server: _Server) -> None:
    server.answer = (200, {}, b"x" * 3_000_000)
    assert run(call(server)).error[:2] == ("output_too_large", False)


def test_calls_do_not_share_cookies(server: _Server) -> None:
    server.answer = (200, {"set-cookie": "a=1; Path=/"}, b"{}")

    async def work(start: Start) -> None:
        await start(call(server)).end()
        await start(call(server)).end()

    on_runners(work)
    assert [headers.get("cookie") for _, headers, _ in server.requests] == [None, None]


def test_a_missing_response_is_retried() -> None:
    kind, retryable, message = run(job(None, Runtime("http", url="http://127.0.0.1:1/hook"))).error
    assert (kind, retryable) == ("http", True)
    assert message.startswith("no answer from http://127.0.0.1:1/hook: ")


def test_an_unusable_proxy_is_reported_and_does_not_affect_other_calls(
    server: _Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, proxy in (("ALL_PROXY", "socks://u:hush@proxy:1"), ("http_proxy", "socks5://proxy:1")):
        monkeypatch.setenv(name, proxy)
        assert run(call(server)).output == {}
        kind, retryable, message = run(job(None, Runtime("http", url="http://stepwell.example/hook"))).error
        assert (kind, retryable) == ("start", True)
        assert message.startswith(f"http://stepwell.example/hook: {name}=socks")
        assert "hush" not in message


def test_missing_certificates_are_reported_and_not_needed_for_http(
    server: _Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/gone.pem")
    assert run(call(server)).output == {}
    kind, _, message = run(job(None, Runtime("http", url=server.url.replace("http:", "https:")))).error
    assert (kind, "SSL_CERT_FILE=/gone.pem does not exist" in message) == ("start", True)
    monkeypatch.delenv("SSL_CERT_FILE")
    kind, _, message = run(job(None, Runtime("http", url=server.url.replace("http:", "https:")))).error
    assert (kind, "should the address begin with http://?" in message) == ("http", True)


def test_no_answer_in_time_is_a_timeout(server: _Server) -> None:
    server.is_slow = True
    assert run(call(server, timeout_ms=200)).error == (
        "timeout",
        True,
        "the attempt did not end within the timeout of 0.2 s",
    )


def test_a_call_can_be_stopped_before_and_while_it_runs(server: _Server) -> None:
    server.is_slow = True

    async def work(start: Start) -> None:
        at_once = start(call(server))
        at_once.running.stop()
        assert (await at_once.end()).error[0] == "stopped"
        later = start(call(server))
        while not server.arrived.is_set():
            await start(job(None, Runtime("http", url="http://127.0.0.1:1/"))).end()
        later.running.stop()
        later.running.stop()
        assert (await later.end()).error[0] == "stopped"

    on_runners(work)

"""HTTP steps on AWS: the request, and the outcome that the engine reads from the report."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from botocore.exceptions import ClientError

from stepwell.aws.clients import client
from stepwell.aws.resources import Resources
from stepwell.aws.steps import http_step
from stepwell.aws.steps.http_step import HttpSteps
from stepwell.aws.steps.outcomes import outcome_of_report
from stepwell.core.run.messages import Error, Outcome

Json = dict[str, Any]
INPUT: Json = {
    "event": {"name": "go", "data": {"n": 2**53 + 1, "é": 1.5}},
    "steps": {},
    "ctx": {"function_id": "f", "step_id": "a", "run_id": "run-1", "attempt": 1, "idempotency_key": "run-1/a"},
}


class Server(ThreadingHTTPServer):
    """A server that answers each request with `answer`, and records the requests."""

    daemon_threads = True
    answer: tuple[int, dict[str, str], bytes] = (200, {}, b"{}")
    is_slow = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.go_on = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
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
            pass  # the client has disconnected

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.go_on.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def steps(resources: Resources) -> HttpSteps:
    return HttpSteps(resources)


def report(steps: HttpSteps, url: str, remaining_ms: int = 900_000, **order: Any) -> Json:
    """The report after Lambda has converted it to JSON twice."""
    document = {**INPUT, "ctx": {**INPUT["ctx"], "token": "t0ken"}}
    whole = {"stepwell": "http", "url": url, "headers": {}, "timeout_ms": 15_000, "input": document, **order}
    answer: Json = json.loads(json.dumps(steps.call(json.loads(json.dumps(whole)), remaining_ms)))
    assert len(json.dumps(answer)) < 400_000
    return answer


def call(steps: HttpSteps, url: str, **order: Any) -> Outcome:
    now = time.time_ns() // 1_000_000
    return outcome_of_report(report(steps, url, **order), now, order.get("timeout_ms", 15_000))


def error_of(outcome: Outcome) -> tuple[str, bool, str]:
    assert outcome.error is not None
    return outcome.error.kind, outcome.retryable, outcome.error.message


def test_the_input_is_posted_without_its_token(steps: HttpSteps, server: Server) -> None:
    server.answer = (200, {"content-type": "text/plain"}, b'{"a": 1}')
    assert call(steps, server.url) == Outcome(output=b'{"a":1}')
    ((path, headers, body),) = server.requests
    assert (path, json.loads(body)) == ("/hook", INPUT)
    assert headers["content-type"] == "application/json"
    assert headers["idempotency-key"] == "run-1/a"


@pytest.mark.parametrize(
    ("answer", "outcome", "log"),
    [
        ((204, {}, b""), Outcome(output=b'{"body":""}'), ""),
        ((200, {}, b"log\n[1]"), Outcome(output=b"[1]"), "log\n"),
        ((200, {}, b"\xff\n"), Outcome(output='{"body":"\ufffd"}'.encode()), ""),
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
def test_an_answer_is_judged_as_on_one_machine(
    steps: HttpSteps, server: Server, answer: Any, outcome: Outcome, log: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = answer
    assert call(steps, server.url) == outcome
    assert capsys.readouterr().out == log


def test_a_large_answer_counts_by_its_compact_form(steps: HttpSteps, server: Server) -> None:
    value = {"numbers": list(range(40_000))}
    server.answer = (200, {}, json.dumps(value, indent=3).encode())
    assert len(server.answer[2]) > 270 * 1024
    outcome = call(steps, server.url)
    assert outcome.output is not None
    assert json.loads(outcome.output) == value


@pytest.mark.parametrize("size", [300_000, 1_500_000, 3_000_000, 9_000_000])
def test_of_a_large_text_the_last_line_is_the_output_and_the_rest_is_log(
    steps: HttpSteps, server: Server, size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = (200, {}, b"x" * 99 + b"\n" + b"y" * size + b'\n{"a": 1}\n')
    assert call(steps, server.url) == Outcome(output=b'{"a":1}')
    log = capsys.readouterr().out
    assert log.startswith("x" * 99 + "\n" + "y" * 100_000)
    if size < 4_000_000:
        assert log.replace("\n", "") == "x" * 99 + "y" * size
    else:
        assert "the log is cut here: an attempt keeps at most 4 MiB" in log
        assert len(log) < 6_000_000


@pytest.mark.parametrize("size", [300_000, 1_500_000, 3_000_000])
def test_an_answer_that_is_too_large_is_refused_with_its_size(steps: HttpSteps, server: Server, size: int) -> None:
    server.answer = (200, {}, b"x" * size)
    kind, retryable, message = error_of(call(steps, server.url))
    assert (kind, retryable) == ("output_too_large", False)
    assert f"{size:,}"[:3] in message


def test_a_call_has_no_memory_of_cookies(steps: HttpSteps, server: Server) -> None:
    server.answer = (200, {"set-cookie": "a=1; Path=/"}, b"{}")
    call(steps, server.url)
    call(steps, server.url)
    assert [headers.get("cookie") for _, headers, _ in server.requests] == [None, None]


def test_no_answer_is_tried_again(steps: HttpSteps) -> None:
    kind, retryable, message = error_of(call(steps, "http://127.0.0.1:1/hook"))
    assert (kind, retryable) == ("http", True)
    assert message.startswith("no answer from http://127.0.0.1:1/hook: ")


def test_a_proxy_that_cannot_be_used_and_certificates_that_are_gone_are_named_and_harm_no_other_call(
    steps: HttpSteps, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks://proxy:1")
    monkeypatch.setenv("SSL_CERT_FILE", "/gone.pem")
    assert call(steps, server.url).error is None
    kind, retryable, message = error_of(call(steps, "http://stepwell.example/"))
    assert (kind, retryable, "ALL_PROXY=socks://proxy:1" in message) == ("start", True, True)
    kind, retryable, message = error_of(call(steps, "https://127.0.0.1:1/"))
    assert (kind, retryable, "SSL_CERT_FILE=/gone.pem" in message) == ("start", True, True)


def test_no_answer_in_time_is_a_timeout(steps: HttpSteps, server: Server) -> None:
    server.is_slow = True
    assert error_of(call(steps, server.url, timeout_ms=200)) == (
        "timeout",
        True,
        "the attempt did not end within the timeout of 0.2 s",
    )


def test_the_report_comes_before_lambda_ends_the_invocation(steps: HttpSteps, server: Server) -> None:
    server.is_slow = True
    answer = report(steps, server.url, remaining_ms=1200)
    assert answer["error"]["kind"] == "timeout"


# --- headers ---------------------------------------------------------------------------------------------------------


def put(name: str, value: str) -> None:
    client("ssm").put_parameter(Name=f"/stepwell/test/{name}", Value=value, Type="SecureString")


def test_headers_have_the_values_of_env_and_secrets_in_them(
    steps: HttpSteps, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    put("dotenv/f/a", json.dumps({"A": "dotenv", "B": "dotenv", "C": "dotenv"}))
    put("secrets/C", "secret")
    put("secrets/HIDDEN", "not this step's")
    headers = {"X-All": "${A} ${B} ${C}", "X-Odd": "${HIDDEN} $HOME", "Content-Type": "application/x"}
    call(steps, server.url, headers=headers, env={"B": "env", "C": "env"}, secrets=["C", "GONE"])
    sent = server.requests[0][1]
    assert sent["x-all"] == "dotenv env secret"
    assert (sent["x-odd"], sent["content-type"]) == ("${HIDDEN} $HOME", "application/x")
    text = "the header X-Odd names ${HIDDEN}, which is neither in env nor in secrets\n"
    assert capsys.readouterr().out == text


def test_values_are_read_only_where_a_header_needs_them_and_then_once(steps: HttpSteps, server: Server) -> None:
    asked: list[str] = []
    client("ssm").meta.events.register("before-call.ssm.*", lambda model, **_: asked.append(model.name))
    put("secrets/TOKEN", "x")
    asked.clear()
    call(steps, server.url, headers={"X-Plain": "plain"}, secrets=["TOKEN"])
    assert asked == []
    for _ in range(2):
        call(steps, server.url, headers={"Authorization": "Bearer ${TOKEN}"}, secrets=["TOKEN"])
    assert asked == ["GetParameters"]
    assert server.requests[-1][1]["authorization"] == "Bearer x"


def test_a_header_that_cannot_be_sent_does_not_show_the_secret(
    steps: HttpSteps, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    put("secrets/TOKEN", "s3cret\nx")
    outcome = call(steps, server.url, headers={"Authorization": "${TOKEN}"}, secrets=["TOKEN"])
    kind, retryable, message = error_of(outcome)
    assert (kind, retryable) == ("start", False)
    assert "Authorization" in message
    assert "s3cret" not in message + capsys.readouterr().out
    assert server.requests == []


def test_values_that_cannot_be_read_now_are_read_at_the_next_attempt(steps: HttpSteps, server: Server) -> None:
    def refuse(**_: Any) -> Any:
        raise ConnectionError("no way to SSM")

    client("ssm").meta.events.register("before-call.ssm.*", refuse)
    outcome = call(steps, server.url, headers={"Authorization": "${TOKEN}"}, secrets=["TOKEN"])
    assert error_of(outcome)[:2] == ("values_unavailable", True)


def test_sandboxes_that_start_together_wait_for_their_turn_at_ssm(
    steps: HttpSteps, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("secrets/TOKEN", "x")
    refusals = [ClientError({"Error": {"Code": "ThrottlingException"}}, "GetParameters")] * 3

    def refuse(**_: Any) -> Any:
        if refusals:
            raise refusals.pop()

    monkeypatch.setattr(http_step.random, "uniform", lambda least, most: 0)
    client("ssm").meta.events.register("before-call.ssm.*", refuse)
    call(steps, server.url, headers={"Authorization": "Bearer ${TOKEN}"}, secrets=["TOKEN"])
    assert server.requests[-1][1]["authorization"] == "Bearer x"


def test_a_cold_start_loads_no_engine() -> None:
    names = ["pydantic", "starlette", "cel_expr_python", "mangum", "stepwell.engine", "boto3"]
    code = f"import sys, stepwell.aws.steps.http_step; print([n for n in {names} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""The errors of commands for answers that are not from Stepwell, and for requests without an answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from stepwell.cli.main import app


class _Other(ThreadingHTTPServer):
    """A server that gives the same answer to every request."""

    daemon_threads = True
    answer: tuple[int, dict[str, str], bytes] = (200, {}, b"")


class _Handler(BaseHTTPRequestHandler):
    server: _Other

    def do_GET(self) -> None:
        status, headers, body = self.server.answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def other() -> Iterator[_Other]:
    with _Other(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def error(url: str, **env: str) -> str:
    result = CliRunner().invoke(app, ["runs"], env={"STEPWELL_URL": url, "STEPWELL_ENV": "", "COLUMNS": "300", **env})
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


@pytest.mark.parametrize(
    ("status", "headers", "body", "text"),
    [
        (302, {"location": "https://login.example/?to=x"}, b"", "answered 302, a redirect to https://login.example/"),
        (
            200,
            {"content-type": "text/html; charset=utf-8"},
            b"<h1>Log in</h1>",
            "answered 200 with text/html instead of JSON",
        ),
        (200, {"content-type": "application/json"}, b"{", "answered 200 with a body that is not JSON"),
        (200, {}, b"", "answered 200 with a body that is not JSON"),
        (200, {}, b"[]", "answered with JSON that is not an object"),
        (200, {}, b'{"hello": "world"}', "answered without the field 'data'"),
        (404, {}, b'{"message": "Not Found"}', "answered 404 (Not Found); this may not be a Stepwell server"),
        (401, {}, b'{"detail": "who?", "status": 401}', "error: who?; set STEPWELL_KEY"),
    ],
)
def test_an_answer_of_another_server_is_reported_in_one_line(
    other: _Other, status: int, headers: dict[str, str], body: bytes, text: str
) -> None:
    other.answer = (status, headers, body)
    assert text in error(f"http://127.0.0.1:{other.server_address[1]}")


def test_a_request_without_an_answer_is_reported_in_one_line(other: _Other) -> None:
    port = other.server_address[1]
    assert "no server answers at http://127.0.0.1:1; start one" in error("http://127.0.0.1:1")
    assert "should the address begin with http://?" in error(f"https://127.0.0.1:{port}")
    assert "SSL_CERT_FILE=/gone does not exist" in error("https://127.0.0.1:1", SSL_CERT_FILE="/gone")
    assert "ALL_PROXY=socks://x:1 is not a valid proxy" in error("http://stepwell.example", ALL_PROXY="socks://x:1")
    assert "STEPWELL_URL=stepwell is not a valid address" in error("stepwell")
    assert "no server answers" in error("http://127.0.0.1:1", SSL_CERT_FILE="/gone", ALL_PROXY="socks://x:1")

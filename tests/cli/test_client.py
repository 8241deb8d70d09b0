"""What a command says of an answer that is not Stepwell's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from stepwell.cli.main import app


class _Other(ThreadingHTTPServer):
    """Another server, which answers every request so."""

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
        (200, {"content-type": "text/html; charset=utf-8"}, b"<h1>Log in</h1>", "answered 200 with text/html, which"),
        (200, {"content-type": "application/json"}, b"{", "answered 200 with something that is not JSON"),
        (200, {}, b"", "answered 200 with something that is not JSON"),
        (200, {}, b"[]", "answered what Stepwell does not"),
        (200, {}, b'{"hello": "world"}', "answered without 'data'"),
        (404, {}, b'{"message": "Not Found"}', "answered 404 (Not Found); is it Stepwell"),
        (401, {}, b'{"detail": "who?", "status": 401}', "error: who?; set STEPWELL_KEY"),
    ],
)
def test_an_answer_that_is_not_stepwells_is_told_in_one_line(
    other: _Other, status: int, headers: dict[str, str], body: bytes, text: str
) -> None:
    other.answer = (status, headers, body)
    assert text in error(f"http://127.0.0.1:{other.server_address[1]}")


def test_what_stands_in_the_way_of_a_request_is_told_in_one_line(other: _Other) -> None:
    port = other.server_address[1]
    assert "no server answers at http://127.0.0.1:1; start one" in error("http://127.0.0.1:1")
    assert "should the address begin with http://?" in error(f"https://127.0.0.1:{port}")
    assert "SSL_CERT_FILE=/gone is not there" in error("https://127.0.0.1:1", SSL_CERT_FILE="/gone")
    assert "ALL_PROXY=socks://x:1 is no proxy" in error("http://stepwell.example", ALL_PROXY="socks://x:1")
    assert "STEPWELL_URL=stepwell is no address" in error("stepwell")
    assert "no server answers" in error("http://127.0.0.1:1", SSL_CERT_FILE="/gone", ALL_PROXY="socks://x:1")

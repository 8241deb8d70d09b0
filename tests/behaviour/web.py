"""A web server for steps that make HTTP requests."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    status: int = 200
    body: bytes = b"null"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes


class Site:
    """A web server.

    Returns the given answers in turn (the last one for all later requests), and records the requests.
    """

    def __init__(self) -> None:
        self.answers: list[Answer] = [Answer()]
        self.requests: list[Request] = []
        self.hold = threading.Event()  # requests are answered only when it is set
        self.hold.set()
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                site.requests.append(Request(self.command, self.path, headers, body))
                site.hold.wait(20)
                answer = site.answers.pop(0) if len(site.answers) > 1 else site.answers[0]
                self.send_response(answer.status)
                if "Transfer-Encoding" not in answer.headers:
                    answer.headers.setdefault("Content-Length", str(len(answer.body)))
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)

            do_GET = do_POST = answer  # noqa: N815

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:  # the caller closed the connection
                    self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def wait_for(self, requests: int) -> None:
        """Waits until this many requests have come."""
        deadline = time.monotonic() + 20
        while len(self.requests) < requests:
            assert time.monotonic() < deadline, f"only {len(self.requests)} requests came"
            time.sleep(0.001)

    def close(self) -> None:
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()

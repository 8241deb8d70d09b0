"""An HTTP server through which other processes reach the emulator: they set AWS_ENDPOINT_URL to `url`.

The service and region of a request are read from the signature. Requests without a signature are refused.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from botocore.awsrequest import AWSPreparedRequest, AWSResponse

Answers = Callable[[str, AWSPreparedRequest], AWSResponse | None]
_SCOPE = re.compile(r"Credential=[^/]+/\d{8}/(?P<region>[a-z0-9-]+)/(?P<service>[a-z0-9-]+)/aws4_request")
_OPERATIONS = {re.compile(r"/2015-03-31/functions/[^/]+/invocations"): "lambda.Invoke"}  # that can be intercepted


class Endpoint:
    """`answers` is called with the operation (empty if it is not in `_OPERATIONS`) and the request."""

    def __init__(self, answers: Answers) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"answers": [answers]}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    answers: list[Answers]
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # sends an answer in one packet
    disable_nagle_algorithm = True

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        scope = _SCOPE.search(self.headers.get("Authorization", "") or unquote(self.path).replace("X-Amz-", ""))
        if scope is None:
            self._send(403, {}, b'{"message": "Missing Authentication Token"}')
            return
        host = f"{scope['service']}.{scope['region']}.amazonaws.com"
        headers = {**self.headers, "Host": host}
        request = AWSPreparedRequest(self.command, f"https://{host}{self.path}", headers, body, False)
        path = unquote(urlsplit(self.path).path)
        operation = next((name for pattern, name in _OPERATIONS.items() if pattern.fullmatch(path)), "")
        answer = self.answers[0](operation, request)
        if answer is None:
            self._send(404, {}, b'{"message": "the emulator does not have this service"}')
        else:
            self._send(answer.status_code, dict(answer.headers), answer.content)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = _handle  # noqa: N815 (names of http.server)

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "server", "date"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...

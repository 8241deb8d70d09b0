"""The Lambda Runtime API over HTTP: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html.

It only translates HTTP to calls of the sandbox, and decides nothing itself. Each sandbox has its own port, because
runtimes accept only a host and a port, without a path.
"""

from __future__ import annotations

import re
import socket
import threading
from http.server import BaseHTTPRequestHandler
from typing import Protocol

_VERSION = "/2018-06-01/runtime"
_END = re.compile(rf"{_VERSION}/invocation/(?P<id>[^/]+)/(?P<kind>response|error)")


class Runtime(Protocol):
    """The calls that HTTP requests are translated to."""

    @property
    def arn(self) -> str: ...

    def next(self) -> tuple[str, int, bytes] | None: ...

    def answered(self, invocation_id: str, payload: bytes, *, is_error: bool) -> bool: ...

    def failed_to_start(self, payload: bytes) -> None: ...


class RuntimeApi:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=8)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stops accepting connections. Open ones end with the process at the other end."""
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes up the accepting thread
        except OSError:
            pass
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, address = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection, address), daemon=True).start()

    def _serve(self, connection: socket.socket, address: object) -> None:
        with connection:
            try:
                _Connection(connection, address, self._runtime)
            except OSError:
                pass  # the process has ended


class _Connection(BaseHTTPRequestHandler):
    raw_requestline: bytes
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # sends an answer in one packet
    disable_nagle_algorithm = True

    def __init__(self, connection: socket.socket, address: object, runtime: Runtime) -> None:
        self._runtime = runtime
        super().__init__(connection, address, None)  # type: ignore[arg-type]

    def parse_request(self) -> bool:
        """Reads the headers without a limit: runtimes put a whole traceback into one, and Python's limit is 64 KiB."""
        try:
            self.command, self.path, self.request_version = self.raw_requestline.decode("latin-1").split()
        except ValueError:
            self.close_connection = True
            return False
        self._fields: dict[str, str] = {}
        while line := self.rfile.readline().rstrip(b"\r\n"):
            name, _, value = line.decode("latin-1").partition(":")
            self._fields[name.lower()] = value.strip()
        self.close_connection = self._fields.get("connection", "").lower() == "close"
        if self._fields.get("expect", "").lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.wfile.flush()
        return True

    def do_GET(self) -> None:
        if self.path != f"{_VERSION}/invocation/next":
            self._send(404, _error("NotFound", self.path))
            return
        found = self._runtime.next()
        if found is None:
            self.close_connection = True
            return
        request_id, deadline_ms, payload = found
        self._send(
            200,
            payload,
            {
                "Lambda-Runtime-Aws-Request-Id": request_id,
                "Lambda-Runtime-Deadline-Ms": str(deadline_ms),
                "Lambda-Runtime-Invoked-Function-Arn": self._runtime.arn,
                "Lambda-Runtime-Trace-Id": f"Root=1-00000000-{request_id.replace('-', '')[:24]};Sampled=0",
            },
        )

    def do_POST(self) -> None:
        body = self._body()
        match = _END.fullmatch(self.path)
        if match:
            was_taken = self._runtime.answered(match["id"], body, is_error=match["kind"] == "error")
            self._send(*(_ACCEPTED if was_taken else (400, _error("InvalidRequestID", "Invalid request ID"))))
        elif self.path == f"{_VERSION}/init/error":
            self._runtime.failed_to_start(body)
            self._send(*_ACCEPTED)
        else:
            self._send(404, _error("NotFound", self.path))

    def _body(self) -> bytes:
        if self._fields.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self._fields.get("content-length", 0)))
        chunks = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers
            pass
        return b"".join(chunks)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response_only(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


_ACCEPTED = (202, b'{"status":"OK"}\n')


def _error(kind: str, message: str) -> bytes:
    return b'{"errorType":"%b","errorMessage":"%b"}' % (kind.encode(), message.encode())

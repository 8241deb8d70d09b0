"""Runs the adapter's binary as Lambda does: with a server for the Runtime API, and the adapter as a process.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import base64
import json
import os
import queue
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PATIENCE_S = 60
PREFIX = "/2018-06-01/runtime/"


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def close(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores errors: the adapter may be killed during a request."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


class RuntimeAPI:
    """A Runtime API. It hands out work, and collects results as (path, body): `response`, `error` or `init/error`."""

    def __init__(self) -> None:
        self.work: queue.SimpleQueue[tuple[str, bytes, int]] = queue.SimpleQueue()
        self.answers: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self.waiting = threading.Semaphore(0)  # number of requests for work
        api = self

        class Requests(Handler):
            def do_GET(self) -> None:
                assert self.path == f"{PREFIX}invocation/next"
                api.waiting.release()
                request_id, body, deadline = api.work.get()
                headers = {
                    "Lambda-Runtime-Aws-Request-Id": request_id,
                    "Lambda-Runtime-Deadline-Ms": str(deadline),
                    "Lambda-Runtime-Trace-Id": f"Root=1-{request_id}",
                }
                self.answer(200, body, headers)

            def do_POST(self) -> None:
                body = json.loads(self.body())
                self.answer(202, b'{"status":"OK"}')
                api.answers.put((self.path.removeprefix(PREFIX), body))

        self.server = Server(Requests)


class Lambda:
    """One sandbox in `folder`, with the step's code in `folder`/step."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self.binary, self.folder = binary, folder
        self.code, self.tmp = folder / "step", folder / "tmp"
        self.code.mkdir()
        self.tmp.mkdir()
        self.api = RuntimeAPI()
        self.process: subprocess.Popen[bytes] | None = None
        self.variables: dict[str, str] = {}
        self._number = 0
        self._log = (folder / "log").open("w+b")

    def script(self, text: str, name: str = "main.sh") -> Sequence[str]:
        """Writes a program into the step's code, and returns the command that runs it."""
        file = self.code / name
        file.write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
        return [f"./{name}"]

    def start(self, command: Sequence[str] | None, *arguments: str, timeout_ms: int = 60_000, **env: str) -> None:
        variables = {
            "PATH": os.environ["PATH"],
            "AWS_LAMBDA_RUNTIME_API": self.api.server.host,
            "LAMBDA_TASK_ROOT": str(self.folder),
            "TMPDIR": str(self.tmp),
            "STEPWELL_TIMEOUT_MS": str(timeout_ms),
            "AWS_REGION": "eu-central-1",
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_SESSION_TOKEN": "session",
        }
        if command is not None:
            variables["STEPWELL_COMMAND"] = json.dumps(command)
        self.process = subprocess.Popen(
            [str(self.binary), *arguments], env={**variables, **env}, stdout=self._log, stderr=subprocess.STDOUT
        )

    def send(self, body: bytes = b"{}", left_ms: int = 120_000) -> str:
        self._number += 1
        request_id = f"request-{self._number}"
        self.api.work.put((request_id, body, round(time.time() * 1000) + left_ms))
        return request_id

    def invoke(self, body: bytes = b"{}", left_ms: int = 120_000) -> dict[str, Any]:
        """The adapter's report of one invocation, with stdout as bytes."""
        request_id = self.send(body, left_ms)
        path, report = self.api.answers.get(timeout=PATIENCE_S)
        assert path == f"invocation/{request_id}/response", (path, report)
        assert report["stepwell"] == 1
        return {**report, "stdout": base64.b64decode(report["stdout"], validate=True)}

    def run(self, script: str, body: bytes = b"{}", left_ms: int = 120_000, **options: Any) -> dict[str, Any]:
        self.start(self.script(script), **options)
        return self.invoke(body, left_ms)

    def wait_until_clean(self) -> None:
        """Waits until the adapter requests work again after all invocations."""
        for _ in range(self._number + 1):
            assert self.api.waiting.acquire(timeout=PATIENCE_S)

    def log(self) -> bytes:
        return (self.folder / "log").read_bytes()

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self._log.close()
        self.api.server.close()

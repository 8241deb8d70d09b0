"""Measures the cost of the step adapter: its own time per warm invocation, its time to start, and its size.

A program and a native handler run with and without the adapter in turns; the adapter's own time is the difference.
Without the adapter, the program is started by the fastest system call, and the handler's runtime is called directly. A
plain socket serves as the Runtime API.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from stepwell.aws.deploy import adapter

INPUT = b'{"event": {"name": "bench"}, "steps": {}, "ctx": {"run_id": "r", "step_id": "s", "attempt": 1}}'
PATIENCE_S = 10
RUNTIME = """
import http.client, os
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
while True:
    api.request("GET", "/2018-06-01/runtime/invocation/next")
    api.getresponse().read()
    api.request("POST", "/2018-06-01/runtime/invocation/1/response", b'{"exit":0}')
    api.getresponse().read()
"""


class Api:
    """One connection to an adapter or a runtime, which requests work and posts the results."""

    def __init__(self, command: list[str], folder: Path, **variables: str) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE_S)
        (folder / "step").mkdir(exist_ok=True)
        env = {
            "PATH": os.environ["PATH"],
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._listener.getsockname()[1]}",
            "LAMBDA_TASK_ROOT": str(folder),
            "STEPWELL_TIMEOUT_MS": "10000",
            **variables,
        }
        started = time.perf_counter()
        self._process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
        self._connection, _ = self._listener.accept()
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection.settimeout(PATIENCE_S)
        self._read_request()
        self.ready_ms = (time.perf_counter() - started) * 1000

    def invoke_ms(self) -> float:
        """The time in ms from sending the work to receiving the whole report."""
        deadline = round(time.time() * 1000) + 60_000
        head = (
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nLambda-Runtime-Aws-Request-Id: 1\r\n"
            f"Lambda-Runtime-Deadline-Ms: {deadline}\r\nContent-Length: {len(INPUT)}\r\n\r\n"
        )
        started = time.perf_counter()
        self._connection.sendall(head.encode() + INPUT)
        report = self._read_request()
        took = (time.perf_counter() - started) * 1000
        assert b'"exit":0' in report, report
        self._connection.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        self._read_request()  # the adapter has cleaned up, and requests the next invocation
        return took

    def _read_request(self) -> bytes:
        text = b""
        while b"\r\n\r\n" not in text:
            text += self._receive()
        head, _, body = text.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        while len(body) < int(fields.get(b"content-length", 0)):
            body += self._receive()
        return body

    def _receive(self) -> bytes:
        piece = self._connection.recv(65536)
        assert piece, "the adapter has ended"
        return piece

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._connection.close()
        self._listener.close()


def alone_ms(program: str) -> float:
    started = time.perf_counter()
    pid = os.posix_spawn(program, [os.fsencode(program), INPUT], os.environ)
    os.waitpid(pid, 0)
    return (time.perf_counter() - started) * 1000


def programs(binary: Path, folder: Path, count: int) -> None:
    program = shutil.which("true") or "/bin/true"
    starts = []
    for _ in range(20):
        api = Api([str(binary)], folder, STEPWELL_COMMAND=f'["{program}"]')
        starts.append(api.ready_ms)
        api.close()
    api = Api([str(binary)], folder, STEPWELL_COMMAND=f'["{program}"]')
    pairs = [(alone_ms(program), api.invoke_ms()) for _ in range(count + 50)][50:]
    api.close()
    show(program, pairs)
    print(f"ready after its start   {statistics.median(starts):6.2f} ms")


def handlers(binary: Path, folder: Path, count: int) -> None:
    runtime = [sys.executable, "-I", "-S", "-c", RUNTIME]
    direct, guarded = Api(runtime, folder), Api([str(binary), *runtime], folder)
    pairs = [(direct.invoke_ms(), guarded.invoke_ms()) for _ in range(count + 50)][50:]
    direct.close()
    guarded.close()
    show("a native handler", pairs)


def show(what: str, pairs: list[tuple[float, float]]) -> None:
    """Prints the medians, and the minimum, which depends least on other load of the machine."""
    alone, through = (statistics.median(times) for times in zip(*pairs, strict=True))
    least, most = (min(times) for times in zip(*pairs, strict=True))
    print(f"{what} alone: {alone:.2f} ms, through the adapter: {through:.2f} ms")
    own = f"{through - alone:6.2f} ms (medians of {len(pairs)}; {most - least:.2f} of the fastest)"
    print(f"the adapter's own       {own}")


def main(count: Annotated[int, typer.Option(help="Number of invocations to measure.")] = 1000) -> None:
    """Prints the costs of the adapter on this machine."""
    binary = adapter.binary({"aarch64": "arm64"}.get(platform.machine(), platform.machine()))
    with tempfile.TemporaryDirectory() as folder:
        programs(binary, Path(folder), count)
        handlers(binary, Path(folder), count)
    for architecture in ("arm64", "x86_64"):
        print(f"size for {architecture:7}        {adapter.binary(architecture).stat().st_size / 1e6:6.1f} MB")


if __name__ == "__main__":
    typer.run(main)

"""A real `stepwell dev` to be measured, and a cheap client for it.

Every error is a BenchError that contains the server's output.
"""

from __future__ import annotations

import copy
import http.client
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FUNCTIONS = Path(__file__).resolve().parent / "functions"
PATIENCE_S = 60.0
KEPT_OPEN_S = 2.0  # after a longer pause, the client reconnects before the server closes the connection
AFTERWARDS_S = 0.3  # how long delays are still measured after a request


class BenchError(Exception):
    """A benchmark failed; the message is for people."""


@dataclass(frozen=True, slots=True)
class Keys:
    send: str
    manage: str


class Server:
    """A `stepwell dev` or `serve`, and one keep-alive connection to it. Without `database`, it gets a new one.

    `ready_s`: from the start of the process to the first 200 of /healthz.
    """

    def __init__(
        self, functions: Path = FUNCTIONS, command: str = "dev", database: Path | None = None, *options: str
    ) -> None:
        self._used_at = time.monotonic()
        self._functions, self._command, self._database, self._options = functions, command, database, options

    def __enter__(self) -> Server:
        script = Path(sys.executable).with_name("stepwell")
        if not script.exists():
            raise BenchError(f"{script} is not there: install the project with `{sys.executable} -m pip install -e .`")
        self._temporary = tempfile.TemporaryDirectory(prefix="stepwell-bench-")
        self.folder = Path(self._temporary.name)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        database = ["--db", str(self._database or self.folder / "bench.db")]
        self._make_key = [str(script), "keys", "create", *database, "--json", "--scope"]
        argv = [str(script), self._command, str(self._functions), "--port", str(self.port), *database, *self._options]
        started = time.perf_counter()
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder)
        try:
            self._connect()
        except BaseException:
            self.__exit__()
            raise
        self.ready_s = time.perf_counter() - started
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._temporary.cleanup()

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"

    def _connect(self) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                self._connection.connect()
                break
            except ConnectionRefusedError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise BenchError(f"the server did not start:\n{self._output()}") from None
                time.sleep(0.001)
        self.call("GET", "/healthz")

    def call(self, method: str, path: str, body: bytes | None = None) -> Any:
        """The JSON of the answer. Raises BenchError unless the status is 200."""
        if time.monotonic() > self._used_at + KEPT_OPEN_S:
            self.hang_up()
        self._used_at = time.monotonic()
        try:
            self._connection.request(method, path, body, {"Content-Type": "application/json"})
            with self._connection.getresponse() as response:
                status, answer = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise BenchError(f"{method} {path}: {error!r}\n{self._output()}") from error
        if status != 200:
            raise BenchError(f"{method} {path} answered {status}: {answer[:500].decode(errors='replace')}")
        return json.loads(answer)

    def _output(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])

    def make_keys(self) -> Keys:
        def make(scope: str) -> str:
            done = subprocess.run([*self._make_key, scope], capture_output=True, text=True, check=True)
            return str(json.loads(done.stdout)["key"])

        return Keys(make("send"), make("manage"))

    def another(self) -> Server:
        """The same server with a separate connection, for use in another thread. Need not be closed."""
        other = copy.copy(self)
        other._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        return other

    def hang_up(self) -> None:
        """Closes the connection. The next call opens a new one."""
        self._connection.close()

    def send(self, events: list[dict[str, Any]]) -> list[str]:
        """Sends events. Returns the ids."""
        ids: list[str] = self.call("POST", "/e/bench", json.dumps(events).encode())["ids"]
        return ids

    def listed(self, path: str) -> Iterator[dict[str, Any]]:
        """All items of a list, newest first. `path` must have a query."""
        after = ""
        while True:
            page = self.call("GET", f"{path}&limit=200{after}")
            yield from page["data"]
            if page["next"] is None:
                return
            after = f"&after={page['next']}"

    def wait_until_ended(self, function: str) -> None:
        """Waits until the function has no running runs."""
        deadline = time.monotonic() + PATIENCE_S * 10
        while self.call("GET", f"/v1/runs?function={function}&status=running&limit=1")["data"]:
            if time.monotonic() > deadline:
                raise BenchError(f"runs of {function} do not end")
            time.sleep(0.02)

    def memory(self) -> dict[str, float]:
        """Peaks of resident memory in MB: of the server, and the sum over all processes (shared pages count in each).

        Empty where there is no /proc.
        """
        if not Path("/proc/self/status").exists():
            return {}
        peaks = [_peak_mb(pid) for pid in _tree(self.process.pid)]
        return {"server_mb": peaks[0], "all_mb": sum(peaks)}

    def private_mb_of_children(self) -> float:
        """Memory in MB that one of the server's child processes does not share, on average."""
        private = [_private_mb(pid) for pid in list(_tree(self.process.pid))[1:]]
        return sum(private) / max(1, len(private))

    def cpu_s(self) -> float:
        """CPU time of the server's process so far, in seconds. Raises BenchError if there is no /proc."""
        fields = _stat(self.process.pid)
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def steps_cpu_s(self) -> float:
        """CPU time of all processes below the server's so far, in seconds: those that run, and those that ended."""
        ticks = 0
        for pid in _tree(self.process.pid):
            user, system, *ended = map(int, _stat(pid)[11:15])
            ticks += sum(ended) + (user + system if pid != self.process.pid else 0)
        return ticks / os.sysconf("SC_CLK_TCK")

    def wait_until_idle(self) -> None:
        """Waits until the server uses no CPU time."""
        before = -1.0
        while (spent := self.cpu_s()) != before:
            before = spent
            time.sleep(0.15)


class Watcher:
    """Polls /healthz, each time over a new connection. `longest`: the longest time until an answer, in seconds."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.longest = 0.0

    @contextmanager
    def running(self, afterwards_s: float = AFTERWARDS_S) -> Iterator[None]:
        """Polls within the block. Raises BenchError if the server does not answer."""
        command = [sys.executable, str(Path(__file__).with_name("watcher.py")), str(self._server.port)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                process.stdout.readline()
                yield
                time.sleep(afterwards_s)
            finally:
                process.terminate()
                longest, errors = process.communicate()
            if process.returncode != 0:
                raise BenchError(f"/healthz: {errors}")
        self.longest = float(longest)


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from _tree(int(child))


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat that follow the name. Raises BenchError if there is no /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError as error:
        raise BenchError("CPU time is read from /proc, which is not there: use Linux") from error


def _private_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # the process has ended meanwhile
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def _peak_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # the process has ended meanwhile
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)


class FinishLine:
    """A named pipe to which the last step of a run writes the number of the event.

    This costs the run almost nothing, and both ends of a latency are read from the clock of this process.
    """

    def __init__(self, server: Server) -> None:
        self.path = server.folder / f"finish-{time.monotonic_ns()}"
        os.mkfifo(self.path)
        self._pipe = os.open(
            self.path, os.O_RDWR | os.O_NONBLOCK
        )  # also opened for writing, so that there is never an end of file

    def wait(self, runs: int) -> float:
        """Waits until this many runs have written to the pipe. Returns the time of the last one (perf_counter)."""
        while runs > 0:
            if not select.select([self._pipe], [], [], PATIENCE_S)[0]:
                raise BenchError(f"{runs} runs did not get to their last step; none did within {PATIENCE_S:.0f} s")
            runs -= os.read(self._pipe, 65_536).count(b"\n")
        return time.perf_counter()

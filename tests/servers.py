"""Real servers for tests: `stepwell dev` or `serve` in a separate process, with its own database and port."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx

from stepwell.api.access import KeyScope
from stepwell.local.database.keys import KeyStore
from tests import commands

Json = dict[str, Any]
T = TypeVar("T")

DEADLINE_S = 40.0
QUICK = {"retries": {"attempts": 0}}


def eventually(find: Callable[[], T], *, within: float = DEADLINE_S, every: float = 0.01) -> T:
    """Calls `find` until the result is true, and returns it."""
    deadline = time.monotonic() + within
    while not (found := find()):
        assert time.monotonic() < deadline, f"the condition was not met in time; the last result was {found!r}"
        threading.Event().wait(every)
    return found


def program(script: str, **fields: Any) -> Json:
    """A step that is a shell script. It is not retried, unless `fields` says so."""
    return {"path": "file://.", "runtime": {"type": "lambda", "command": ["sh", "-c", script]}, **QUICK, **fields}


def write_function(
    folder: Path, id: str = "f", on: str | Json = "go", control: Json | None = None, **steps: Json
) -> Path:
    """Writes a function. `control` are fields of flow control.

    Without `steps`, it has one step, which prints `"done"`. In names of steps, `_` stands for `-`.
    """
    fields = {name.replace("_", "-"): step for name, step in steps.items()} or {"a": program("echo '\"done\"'")}
    trigger = {"event": on} if isinstance(on, str) else on
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"id": id, "triggers": [trigger], "steps": fields, **(control or {})}, indent=1)
    saved = folder / "stepwell.json.new"  # renamed below, so that a reader sees the old file or the new one
    saved.write_text(text)
    saved.replace(folder / "stepwell.json")
    return folder


class Server:
    """A server process. `lines`: the lines of stdout so far, as JSON. `url` is set when the server is ready."""

    def __init__(self, *arguments: str | Path, env: dict[str, str] | None = None, within: Sequence[str] = ()) -> None:
        """`within` is a command that executes the command after it."""
        self.lines: list[Json] = []
        self.stderr = ""
        self.url = ""
        self._changed = threading.Condition()
        self.process = commands.start([str(argument) for argument in arguments], env, within=within)
        self._threads = [threading.Thread(target=read, daemon=True) for read in (self._read_lines, self._read_stderr)]
        for thread in self._threads:
            thread.start()

    def _read_lines(self) -> None:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            with self._changed:
                self.lines.append(json.loads(text))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def _read_stderr(self) -> None:
        assert self.process.stderr is not None
        for text in self.process.stderr:
            self.stderr += text

    def line(self, holds: Callable[[Json], Any], within: float = DEADLINE_S) -> Json:
        """The first line that fulfils the condition. Waits until it is printed."""

        def found() -> Json | None:
            return next((line for line in self.lines if holds(line)), None)

        with self._changed:
            came = self._changed.wait_for(lambda: found() or not self._threads[0].is_alive(), within)
            line = found()
        assert line is not None, (
            f"{'the server ended' if came else 'the line did not come'}: {self.lines} {self.stderr}"
        )
        return line

    def wait_until_ready(self) -> Server:
        line = self.line(lambda line: line.get("kind") == "ready" or line.get("message") == "listening")
        self.url = line["url"]
        return self

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stops the server with a signal. Returns the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def kill(self) -> None:
        self.process.kill()
        self.wait()

    def wait(self) -> int:
        code = self.process.wait(DEADLINE_S)
        for thread in self._threads:
            thread.join(DEADLINE_S)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        return code


@contextmanager
def serving(*arguments: str | Path, env: dict[str, str] | None = None, within: Sequence[str] = ()) -> Iterator[Server]:
    """A running server. It is killed at the end of the block if it still runs."""
    server = Server(*arguments, env=env, within=within)
    try:
        yield server.wait_until_ready()
    finally:
        if server.process.poll() is None:
            server.kill()


def dev(
    functions: Path, db: Path, *options: str | Path, env: dict[str, str] | None = None
) -> AbstractContextManager[Server]:
    return serving("dev", functions, "--port", "0", "--db", db, "--json", *options, env=env)


def serve(
    functions: Path, db: Path, *options: str | Path, env: dict[str, str] | None = None, within: Sequence[str] = ()
) -> AbstractContextManager[Server]:
    return serving("serve", functions, "--port", "0", "--db", db, *options, env=env, within=within)


def new_key(db: Path, scope: str = "manage") -> str:
    """Creates a key in this database."""
    store = KeyStore(db)
    _, secret = store.create(KeyScope(scope), "test", time.time_ns() // 1_000_000)
    store.close()
    return secret


def cli(*arguments: str, input: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs `stepwell` in a separate process."""
    return commands.run(arguments, env, input)


class Api:
    """The HTTP API of a server, with one key."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.http = httpx.Client(
            base_url=url, headers={"authorization": f"Bearer {key}"} if key else {}, timeout=DEADLINE_S
        )

    def get(self, path: str, **query: Any) -> Any:
        answer = self.http.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def send(self, name: str = "go", **event: Any) -> str:
        """Sends one event, and returns the id."""
        answer = self.http.post("/e", json={"name": name, **event})
        assert answer.status_code == 200, answer.text
        (event_id,) = answer.json()["ids"]
        return str(event_id)

    def runs_of(self, event_id: str) -> list[Json]:
        runs: list[Json] = self.get(f"/v1/events/{event_id}/runs")["data"]
        return runs

    def run(self, run_id: str) -> Json:
        found: Json = self.get(f"/v1/runs/{run_id}")
        return found

    def ended(self, event_id: str, within: float = DEADLINE_S) -> Json:
        """Waits until the event's only run has ended, and returns it."""
        (run,) = eventually(
            lambda: [run for run in self.runs_of(event_id) if run["status"] != "running"], within=within
        )
        return self.run(run["id"])

    def close(self) -> None:
        self.http.close()


@contextmanager
def api(server: Server, key: str | None = None) -> Iterator[Api]:
    client = Api(server.url, key)
    try:
        yield client
    finally:
        client.close()

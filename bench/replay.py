"""Replays 10,000 events, and checks that the rate is kept, and that `kill -9` of the command or the server loses
nothing.

All printed results are read from the server's list of runs, not from the output of the command.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Table
from server import BenchError

HANDLER = "def handle(event, context):\n    return event['ctx'].get('replay')\n"
FUNCTIONS = ("target", "other")  # both start on each event; only the first one is replayed
_PATIENCE_S = 300.0


class Bench:
    """A `stepwell serve` that can be killed and restarted at the same address, and a home folder for the command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port: int = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        for function in FUNCTIONS:
            _write_function(folder / "functions" / function, function)
        self._env = {**os.environ, "XDG_STATE_HOME": str(folder / "state"), "STEPWELL_URL": self.url}
        made = self.stepwell("keys", "create", "--scope", "manage", "--db", str(folder / "db"))
        self._env["STEPWELL_KEY"] = made.communicate()[0].split()[-1]
        self.http = httpx.Client(
            base_url=self.url, headers={"authorization": f"Bearer {self._env['STEPWELL_KEY']}"}, timeout=60
        )
        self.server: subprocess.Popen[str] | None = None

    def stepwell(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "stepwell", *arguments]
        return subprocess.Popen(command, env=self._env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            arguments = ["serve", "functions", "--port", str(self._port), "--db", "db"]
            command = [sys.executable, "-m", "stepwell", *arguments]
            self.server = subprocess.Popen(command, env=self._env, stdout=log, stderr=log, text=True, cwd=self.folder)
        self.until(self._answers, "the server does not answer")

    def kill(self) -> None:
        assert self.server is not None
        self.server.kill()
        self.server.wait()

    def _answers(self) -> bool:
        try:
            return self.http.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False

    def until(self, holds: Any, otherwise: str) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not holds():
            if time.monotonic() > deadline:
                raise BenchError(f"{otherwise}: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def send(self, count: int) -> list[str]:
        """Sends events, and waits until all runs have ended. Returns the event ids."""
        ids: list[str] = []
        for first in range(0, count, 500):
            events = [{"name": "go", "data": {"n": n}} for n in range(first, min(count, first + 500))]
            ids += self.http.post("/e", json=events).raise_for_status().json()["ids"]
        self.settle()
        return ids

    def settle(self) -> None:
        running: dict[str, str | int] = {"status": "running", "limit": 1}
        self.until(lambda: not self.http.get("/v1/runs", params=running).json()["data"], "runs do not end")

    def runs(self, **query: str) -> list[dict[str, Any]]:
        """Runs, oldest first."""
        found: list[dict[str, Any]] = []
        after = None
        while True:
            asked: dict[str, str | int] = {**query, "limit": 1000, **({"after": after} if after else {})}
            page = self.http.get("/v1/runs", params=asked).raise_for_status().json()
            found += page["data"]
            after = page["next"]
            if after is None:
                return found[::-1]

    @property
    def interrupted(self) -> list[str]:
        """The ids of replays that have not finished."""
        return [file.stem for file in self.folder.glob("state/stepwell/replays/*.db")]


def _write_function(folder: Path, function: str) -> None:
    folder.mkdir(parents=True)
    step = {"path": "file://.", "runtime": {"type": "lambda", "handler": "told.handle"}}
    definition = {"id": function, "triggers": [{"event": "go"}], "steps": {"a": step}}
    (folder / "stepwell.json").write_text(json.dumps(definition))
    (folder / "told.py").write_text(HANDLER)


def undisturbed(bench: Bench, rate: float) -> str:
    """Runs a replay, and returns the id."""
    command = bench.stepwell("replay", "--function", "target", "--rate", f"{rate:g}/s", "--yes", "--json")
    text = command.communicate()[0]
    if command.returncode != 0:
        raise BenchError(f"the replay failed: {text}")
    replay: str = json.loads(text)["replay"]
    return replay


def killed(bench: Bench, rate: float, seconds: float, numbers: random.Random) -> str:
    """Runs a replay with three kills of the command and two of the server. Returns the id."""
    command = bench.stepwell("replay", "--function", "target", "--rate", f"{rate:g}/s", "--yes", "--json")
    bench.until(lambda: bench.interrupted, "the replay does not begin")
    (replay,) = bench.interrupted
    for what in ("command", "server", "command", "server", "command"):
        time.sleep(seconds / 6 * numbers.uniform(0.5, 1.2))
        if what == "server":
            bench.kill()
            bench.start()
        else:
            command.kill()
            command.communicate()
            command = bench.stepwell("replay", "--resume", replay, "--json")
    text = command.communicate()[0]
    if command.returncode != 0:
        raise BenchError(f"the replay failed: {text}")
    return replay


def measure(bench: Bench, replay: str, events: list[str], rate: float | None) -> list[str]:
    """A row of results: the rate (None: it was interrupted), lost events, duplicates, events out of order, and runs of
    the other function."""
    bench.settle()
    runs = bench.runs(replay=replay)
    times = [datetime.fromisoformat(run["created_at"]).timestamp() for run in runs]
    kept = sum(at < times[-1] for at in times) / (times[-1] - times[0])  # the last time starts a new interval
    counts = Counter(run["event_id"] for run in runs)
    lost, doubled = len(set(events) - counts.keys()), sum(n - 1 for n in counts.values())
    swapped = sum(a != b for a, b in zip([run["event_id"] for run in runs], events, strict=False))
    elsewhere = sum(run["function_id"] != "target" for run in runs) + len(bench.runs(function="other")) - len(events)
    row = ["", "–"] if rate is None else [f"{rate:g}", f"{kept:,.1f} ({kept / rate - 1:+.1%})"]
    return [*row, *(f"{item:,}" for item in (len(runs), lost, doubled, swapped, elsewhere))]


def main(
    events: Annotated[int, typer.Option(help="Number of events.")] = 10_000,
    rate: Annotated[float, typer.Option(help="Replays per second.")] = 500.0,
    seed: Annotated[int, typer.Option(help="Decides the times of the kills.")] = 1,
) -> None:
    """Replays events at a fixed rate: once undisturbed, once with kill -9."""
    table = Table("", "requested rate", "actual rate", "runs", "lost", "doubled", "out of order", "elsewhere")
    with tempfile.TemporaryDirectory(prefix="stepwell-bench-") as folder:
        bench = Bench(Path(folder))
        try:
            bench.start()
            sent = bench.send(events)
            table.add_row("undisturbed", *measure(bench, undisturbed(bench, rate), sent, rate))
            replay = killed(bench, rate, events / rate, random.Random(seed))
            table.add_row("kill -9, 3 of the command, 2 of the server", *measure(bench, replay, sent, None))
        except BenchError as error:
            Console(stderr=True).print(f"error: {error}", style="red", markup=False, soft_wrap=True)
            raise typer.Exit(1) from None
        finally:
            if bench.server is not None:
                bench.kill()
    Console(width=120).print(table)


if __name__ == "__main__":
    typer.run(main)

"""Helpers of several rows: sending many events, running W1, waiting for runs."""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from typing import Any

from local import Workload
from server import BenchError, FinishLine, Server

STEP_FILE = "step.py"
SCRIPT = "echo '{}'\n"
_REQUEST = 1000  # events in one request: the maximum that a server accepts


def send(server: Server, name: str, count: int, **data: Any) -> None:
    """Sends `count` events in as few requests as possible."""
    for first in range(0, count, _REQUEST):
        numbers = range(first, min(first + _REQUEST, count))
        server.send([{"name": name, "data": {"number": n, **data}} for n in numbers])


def w1(server: Server, runs: int = 600) -> float:
    """Runs per second of W1."""
    return Workload(server, FinishLine(server), "handlers").throughput(runs)


def run_ends(server: Server, function: str, count: int) -> list[float]:
    """Waits until a function has no open runs. Returns when the newest runs ended (seconds since the epoch)."""
    server.wait_until_ended(function)
    runs = list(islice(server.listed(f"/v1/runs?function={function}"), count))
    if failed := [run["status"] for run in runs if run["status"] != "completed"]:
        raise BenchError(f"{len(failed)} of {count} runs of {function} are {failed[0]}")
    return [datetime.fromisoformat(run["ended_at"]).timestamp() for run in runs]

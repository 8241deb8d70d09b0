"""What several rows do: send many events, run W1, and wait for runs."""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from typing import Any

from local import Workload
from server import BenchError, FinishLine, Server

STEP_FILE = "step.py"
SCRIPT = "echo '{}'\n"
_REQUEST = 1000  # events in one request: the most that a server takes


def send(server: Server, name: str, count: int, **data: Any) -> None:
    """So many events, as few requests as may be."""
    for first in range(0, count, _REQUEST):
        numbers = range(first, min(first + _REQUEST, count))
        server.send([{"name": name, "data": {"number": n, **data}} for n in numbers])


def w1(server: Server, runs: int = 600) -> float:
    """Runs a second of W1."""
    return Workload(server, FinishLine(server), "handlers").throughput(runs)


def run_ends(server: Server, function: str, count: int) -> list[float]:
    """When the newest runs of a function ended (seconds since the epoch), once none of its runs is open."""
    server.wait_until_ended(function)
    runs = list(islice(server.listed(f"/v1/runs?function={function}"), count))
    if failed := [run["status"] for run in runs if run["status"] != "completed"]:
        raise BenchError(f"{len(failed)} of {count} runs of {function} are {failed[0]}")
    return [datetime.fromisoformat(run["ended_at"]).timestamp() for run in runs]

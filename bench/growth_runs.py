"""Rows about runs: many at once, long ones and wide ones."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from growth_functions import ONE_HANDLER, function, handler, program, write
from growth_row import Aim, Figure, Figures, Measure, Row
from growth_work import SCRIPT, STEP_FILE, run_ends, send
from server import BenchError, Server

_ENOUGH = 300  # steps whose CPU time is measured; the system counts it in hundredths of a second
_PATIENCE_S = 300.0


@contextmanager
def open_backlog(size: int, folder: Path) -> Iterator[Measure]:
    steps = {f"s{n}": handler("step.only", [f"s{n - 1}"] if n else []) for n in range(5)}
    write(folder, function("backlog", steps), {STEP_FILE: ONE_HANDLER})
    with Server(folder) as server:
        send(server, "growth/backlog", 50)
        server.wait_until_ended("growth-backlog")

        def once() -> Figures:
            began = time.time()
            send(server, "growth/backlog", size)
            ends = [ended - began for ended in run_ends(server, "growth-backlog", size)]
            return {"mean_s": sum(ends) / size, "first_s": min(ends), "last_s": max(ends)}

        yield once


BACKLOG = Row(
    "backlog",
    "runs of five steps at once",
    (50, 500, 5_000),
    (10, 50, 200),
    open_backlog,
    (
        Figure("first_s", "the first run ends after", "s", Aim(most=0.1)),
        Figure("mean_s", "runs end after, mean", "s", Aim(most=3)),
        Figure("last_s", "the last run ends after", "s"),
    ),
)


@contextmanager
def open_chain(size: int, folder: Path) -> Iterator[Measure]:
    steps = {f"s{n}": handler("step.only", [f"s{n - 1}"] if n else []) for n in range(size)}
    write(folder, function("chain", steps), {STEP_FILE: ONE_HANDLER})
    with Server(folder) as server:

        def once() -> Figures:
            before = server.cpu_s()
            times = [_run_once(server, "chain") for _ in range(runs)]
            cpu_s, seconds = (server.cpu_s() - before) / runs, sum(times) / runs
            return {"step_ms": seconds * 1000 / size, "s": seconds, "cpu_ms": cpu_s * 1000 / size}

        runs = max(1, _ENOUGH // size)
        once()
        yield once


def _run_once(server: Server, name: str) -> float:
    """The duration of one run, in seconds."""
    (event_id,) = server.send([{"name": f"growth/{name}", "data": {}}])
    _wait_for_end(server, event_id)
    (run,) = server.call("GET", f"/v1/events/{event_id}/runs")["data"]
    if run["status"] != "completed":
        raise BenchError(f"a run of growth-{name} is {run['status']}")
    times = [datetime.fromisoformat(run[key]) for key in ("created_at", "ended_at")]
    return (times[1] - times[0]).total_seconds()


def _wait_for_end(server: Server, event_id: str) -> None:
    """Waits for the event of the run's end. A list of open runs would show all steps each time, and that cost does not
    belong to the run."""
    newest, deadline = "/v1/events?name=stepwell/run.completed&limit=1", time.monotonic() + _PATIENCE_S
    while all(item["data"]["event_id"] != event_id for item in server.call("GET", newest)["data"]):
        if time.monotonic() > deadline:
            raise BenchError(f"no run that event {event_id} started has completed")
        time.sleep(0.02)


CHAIN = Row(
    "chain",
    "steps, one after the other",
    (10, 100, 998),
    (5, 20, 60),
    open_chain,
    (
        Figure("s", "the whole run", "s", Aim(most=1.3)),
        Figure("step_ms", "a step", "ms", Aim(most_ratio=1.5)),
        Figure("cpu_ms", "a step, CPU of the server", "ms", Aim(most_ratio=1.5)),
    ),
)


@contextmanager
def open_fan(size: int, folder: Path) -> Iterator[Measure]:
    """`size` parallel steps, and one step after all of them, compared with the same number of one-step runs."""
    names = [f"s{n}" for n in range(size)]
    for kind, step, files in (
        ("handlers", lambda after=(): handler("step.only", after), {STEP_FILE: ONE_HANDLER}),
        ("programs", program, {"step.sh": SCRIPT}),
    ):
        steps = {name: step() for name in names} | {"join": step(names)}
        write(folder, function(f"fan-{kind}", steps), files)
        write(folder, function(f"one-{kind}", {"only": step()}), files)
    with Server(folder) as server:

        def once() -> Figures:
            return {kind: _run_once(server, f"fan-{kind}") / _ideal(server, f"one-{kind}", size) for kind in kinds}

        kinds = ("handlers", "programs")
        once()
        yield once


def _ideal(server: Server, name: str, count: int) -> float:
    """How long this many one-step runs take if they are sent at once, in seconds."""
    began = time.time()
    send(server, f"growth/{name}", count)
    return max(run_ends(server, f"growth-{name}", count)) - began


FAN_OUT = Row(
    "fan-out",
    "steps side by side, and one that joins them",
    (10, 100, 998),
    (5, 20, 60),
    open_fan,
    (
        Figure("handlers", "handlers: time relative to as many runs of one step", "x", Aim(most=2)),
        Figure("programs", "`sh` programs", "x", Aim(most=2)),
    ),
)

ROWS = (BACKLOG, CHAIN, FAN_OUT)

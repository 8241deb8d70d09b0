"""Rows about data: the cost of a long history, of large values, and of readers."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from growth_functions import LARGE, ONE_HANDLER, function, handler, write
from growth_history import make_history
from growth_row import Aim, Figure, Figures, Measure, Row
from growth_work import STEP_FILE, send, w1
from server import FUNCTIONS, BenchError, FinishLine, Server, Watcher

_OLD_DAYS = 60.0

# --- a long history --------------------------------------------------------------------------------------------------

_LISTS = {
    "running_ms": "/v1/runs?status=running",
    "function_running_ms": "/v1/runs?function=bench-fill&status=running",
    "failed_ms": "/v1/runs?function=bench-fill&status=failed",
    "user_events_ms": "/v1/events?user=hot",
    "user_name_ms": "/v1/events?user=hot&name=bench/never",
    "timeline_ms": "/v1/users/hot/timeline",
}


@contextmanager
def open_history(size: int, folder: Path) -> Iterator[Measure]:
    """A tenth of all runs belong to one user, five are open, and none has failed."""
    functions, database = folder / "functions", folder / "history.db"
    shutil.copytree(FUNCTIONS, functions)
    make_history(functions, database, size)
    disk_mb = database.stat().st_size / 1e6
    with Server(functions, "dev", database) as server:
        w1(server, 100)

        def once() -> Figures:
            figures = {key: _asked_ms(server, path) for key, path in _LISTS.items()}
            figures["runs_per_s"] = w1(server)
            figures["p999_ms"] = _slowest_ms(server)
            figures["save_ms"] = _save_ms(server, functions / "fill/stepwell.yaml")
            return {**figures, "ready_s": server.ready_s, "memory_mb": server.memory()["server_mb"], "disk_mb": disk_mb}

        yield once


def _asked_ms(server: Server, path: str) -> float:
    times = []
    for _ in range(5):
        began = time.perf_counter()
        server.call("GET", path)
        times.append((time.perf_counter() - began) * 1000)
    return sorted(times)[2]


def _slowest_ms(server: Server, count: int = 1000) -> float:
    """The 99.9th percentile of the latency of W1 to the start of the second step, in ms."""
    line = FinishLine(server)
    times = []
    for number in range(count):
        began = time.perf_counter()
        server.send([{"name": "bench/handlers", "data": {"number": number, "finish": str(line.path)}}])
        times.append((line.wait(1) - began) * 1000)
    return sorted(times)[math.ceil(count * 0.999) - 1]


def _save_ms(server: Server, definition: Path) -> float:
    """The longest time that other requests wait while a function is saved, in ms."""

    def versions() -> int:
        return len(server.call("GET", "/v1/functions/bench-fill")["versions"])

    before, watcher = versions(), Watcher(server)
    with watcher.running():
        definition.write_text(_renamed(definition.read_text(), f"Saved at {time.time_ns()}"))
        deadline = time.monotonic() + 10
        while versions() == before:
            if time.monotonic() > deadline:
                raise BenchError("a saved function did not become live")
            time.sleep(0.05)
    return watcher.longest * 1000


def _renamed(definition: str, name: str) -> str:
    lines = definition.splitlines(keepends=True)
    return "".join(f"name: {name}\n" if line.startswith("name:") else line for line in lines)


HISTORY = Row(
    "history",
    "runs that have ended",
    (10_000, 100_000, 1_000_000),
    (1_000, 3_000, 10_000),
    open_history,
    (
        Figure("runs_per_s", "W1", "runs/s", Aim(least_ratio=0.9)),
        Figure("p999_ms", "W1 latency, p99.9", "ms", Aim(most_ratio=2)),
        Figure("running_ms", "runs that are running", "ms", Aim(most_ratio=1.5)),
        Figure("function_running_ms", "... of a function", "ms", Aim(most_ratio=1.5)),
        Figure("failed_ms", "failed runs of a function without any", "ms", Aim(most_ratio=1.5)),
        Figure("user_events_ms", "events of a user with a tenth of all", "ms", Aim(most_ratio=1.5)),
        Figure("user_name_ms", "... with a name that no event has", "ms", Aim(most_ratio=1.5)),
        Figure("timeline_ms", "the timeline of that user", "ms", Aim(most_ratio=1.5)),
        Figure("save_ms", "longest wait of others while a function is saved", "ms", Aim(most=50)),
        Figure("ready_s", "the server is ready after", "s", Aim(most_ratio=1.5)),
        Figure("memory_mb", "memory of the server, peak", "MB", Aim(most_ratio=1.5)),
        Figure("disk_mb", "the database", "MB"),
    ),
)


# --- retention -------------------------------------------------------------------------------------------------------


@contextmanager
def open_cleaning(size: int, folder: Path) -> Iterator[Measure]:
    """W1 on a server that has just started to delete `size` runs."""
    master = folder / "old.db"
    make_history(FUNCTIONS, master, max(size, 100), days_old=_OLD_DAYS if size else 0.0, open_runs=False)

    def once() -> Figures:
        database = folder / "copy.db"
        for name in folder.glob("copy.db*"):
            name.unlink()
        shutil.copy(master, database)
        with Server(FUNCTIONS, "dev", database) as server:
            watcher = Watcher(server)
            with watcher.running():
                speed = w1(server, 1000)
            return {"runs_per_s": speed, "longest_ms": watcher.longest * 1000}

    yield once


CLEANING = Row(
    "cleaning",
    "old runs that are being deleted",
    (0, 100_000, 300_000),
    (0, 3_000, 10_000),
    open_cleaning,
    (
        Figure("runs_per_s", "W1", "runs/s", Aim(least_ratio=0.7)),
        Figure("longest_ms", "longest wait of others", "ms", Aim(most=50)),
    ),
)


# --- readers ---------------------------------------------------------------------------------------------------------


@contextmanager
def open_readers(size: int, folder: Path) -> Iterator[Measure]:
    """A separate process requests the newest runs over `size` connections without a pause."""
    with Server(FUNCTIONS) as server:
        send(server, "bench/fill", 500)
        server.wait_until_ended("bench-fill")
        w1(server, 100)
        yield lambda: _with_readers(server, size)


def _with_readers(server: Server, size: int) -> Figures:
    command = [sys.executable, str(Path(__file__).with_name("pollers.py")), str(server.port), str(size)]
    reading = subprocess.Popen(command, stdout=subprocess.PIPE, text=True) if size else None
    if reading is not None and reading.stdout is not None:
        reading.stdout.readline()  # printed when all are connected
    try:
        began = time.perf_counter()
        speed = w1(server)
        watcher = Watcher(server)
        with watcher.running():
            w1(server, 500)
        seconds = time.perf_counter() - began
    finally:
        if reading is not None:
            reading.terminate()
            answered = reading.communicate()[0]
    answers_per_s = int(answered or 0) / seconds if reading else 0.0
    return {"runs_per_s": speed, "answers_per_s": answers_per_s, "longest_ms": watcher.longest * 1000}


READERS = Row(
    "readers",
    "connections that ask for /v1/runs all the time",
    (0, 10, 50),
    (0, 3, 10),
    open_readers,
    (
        Figure("runs_per_s", "W1", "runs/s", Aim(least_ratio=0.7)),
        Figure("answers_per_s", "their answers", "1/s"),
        Figure("longest_ms", "longest wait of others", "ms", Aim(most=50)),
    ),
)


# --- large values ----------------------------------------------------------------------------------------------------


@contextmanager
def open_values(size: int, folder: Path) -> Iterator[Measure]:
    """Two steps with outputs of `size` bytes; the second gets the output of the first."""
    steps = {"first": handler("step.output"), "second": handler("step.next_output", ["first"])}
    write(folder, function("outputs", steps), {STEP_FILE: LARGE})
    write(folder, function("logs", {"only": handler("step.log")}), {STEP_FILE: LARGE})
    with Server(folder) as server:

        def once() -> Figures:
            figures = {"runs_per_s": _outputs_per_s(server, size), "log_ms": _log_ms(server, size * 16)}
            watcher = Watcher(server)
            with watcher.running():
                _outputs_per_s(server, size, 50)
                send(server, "growth/logs", 3, size=size * 16)
                server.wait_until_ended("growth-logs")
            return {**figures, "longest_ms": watcher.longest * 1000}

        once()
        yield once


def _outputs_per_s(server: Server, size: int, runs: int = 200) -> float:
    began = time.perf_counter()
    send(server, "growth/outputs", runs, size=size)
    server.wait_until_ended("growth-outputs")
    return runs / (time.perf_counter() - began)


def _log_ms(server: Server, size: int, runs: int = 10) -> float:
    """CPU time of the server for a step that prints `size` bytes, in ms."""
    server.wait_until_idle()
    before = server.cpu_s()
    for _ in range(runs):
        send(server, "growth/logs", 1, size=size)
        server.wait_until_ended("growth-logs")
    server.wait_until_idle()
    return (server.cpu_s() - before) * 1000 / runs


VALUES = Row(
    "values",
    "bytes of each output, and a sixteenth of each log",
    (1_000, 64_000, 250_000),
    (1_000, 16_000, 64_000),
    open_values,
    (
        Figure("runs_per_s", "two steps with such outputs", "runs/s", Aim(least=300)),
        Figure("log_ms", "a step with such a log, CPU of the server", "ms", Aim(most=20)),
        Figure("longest_ms", "longest wait of others during both", "ms", Aim(most=50)),
    ),
)


# --- start-up --------------------------------------------------------------------------------------------------------


@contextmanager
def open_start(size: int, folder: Path) -> Iterator[Measure]:
    for n in range(size):
        write(folder, function(f"start-{n}", {"only": handler("step.only")}), {STEP_FILE: ONE_HANDLER})

    def once() -> Figures:
        with Server(folder) as server:
            return {"ready_s": server.ready_s, "memory_mb": server.memory()["server_mb"]}

    yield once


START = Row(
    "start",
    "functions, found for the first time",
    (1, 100, 500),
    (1, 10, 50),
    open_start,
    (
        Figure("ready_s", "the server is ready after", "s"),
        Figure("memory_mb", "memory of the server", "MB"),
    ),
    rounds=3,
)

ROWS = (HISTORY, CLEANING, READERS, VALUES, START)

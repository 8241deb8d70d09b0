"""Rows about steps: many functions whose workers take turns, and how fast programs start."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from growth_functions import function, handler, program, write
from growth_row import Aim, Figure, Figures, Measure, Row
from growth_work import SCRIPT, send
from server import FUNCTIONS, FinishLine, Server


@contextmanager
def open_handlers(size: int, folder: Path) -> Iterator[Measure]:
    code = (FUNCTIONS / "handlers/steps/two.py").read_text()
    for n in range(size):
        steps = {"first": handler("two.first"), "second": handler("two.second", ["first"])}
        # different files: functions with different code do not share workers
        write(folder, function(f"handlers-{n}", steps), {"two.py": f"{code}\nNUMBER = {n}\n"})
    with Server(folder) as server:
        line = FinishLine(server)

        def rotate(runs: int) -> float:
            events = [
                {"name": f"growth/handlers-{n % size}", "data": {"number": n, "finish": str(line.path)}}
                for n in range(runs)
            ]
            began = time.perf_counter()
            for first in range(0, runs, 100):
                server.send(events[first : first + 100])
            return runs / (line.wait(runs) - began)

        began = time.perf_counter()
        for n in range(size):
            server.send([{"name": f"growth/handlers-{n}", "data": {"number": n, "finish": str(line.path)}}])
            line.wait(1)
        cold_ms = (time.perf_counter() - began) / size / 2 * 1000  # two workers have started per function

        def once() -> Figures:
            speed = rotate(1200)
            return {"runs_per_s": speed, "cold_ms": cold_ms, "worker_mb": server.private_mb_of_children()}

        rotate(300)
        yield once


HANDLERS = Row(
    "handlers",
    "functions with handlers, in rotation",
    (12, 24, 50),
    (4, 8, 16),
    open_handlers,
    (
        Figure("runs_per_s", "W1", "runs/s", Aim(least_ratio=0.7)),
        Figure("cold_ms", "a step whose worker must begin", "ms", Aim(most=5)),
        Figure("worker_mb", "private memory of a worker", "MB", Aim(most=2)),
    ),
)


# --- programs ---


@contextmanager
def open_programs(size: int, folder: Path) -> Iterator[Measure]:
    write(folder, function("programs", {"only": program()}), {"step.sh": SCRIPT})
    script = folder / "growth-programs/code/step.sh"
    with Server(folder) as server:

        def once() -> Figures:
            floor = _spawned_per_s(["sh", str(script)], size)
            began = time.perf_counter()
            send(server, "growth/programs", size)
            server.wait_until_ended("growth-programs")
            speed = size / (time.perf_counter() - began)
            return {"runs_per_s": speed, "of_floor": speed / floor}

        once()
        yield once


def _spawned_per_s(argv: Sequence[str], count: int, at_once: int = 4) -> float:
    """The baseline: how many programs per second a bare loop runs with posix_spawn, four at a time."""
    path = shutil.which(argv[0])
    assert path is not None
    nothing = os.open(os.devnull, os.O_WRONLY)
    began = time.perf_counter()
    running = 0
    for _ in range(count):
        os.posix_spawn(path, [*argv, "{}"], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, nothing, 1)])
        running += 1
        if running == at_once:
            os.wait()
            running -= 1
    for _ in range(running):
        os.wait()
    os.close(nothing)
    return count / (time.perf_counter() - began)


PROGRAMS = Row(
    "programs",
    "runs of a `sh` program at once",
    (30, 300, 1000),
    (10, 30, 100),
    open_programs,
    (
        Figure("runs_per_s", "runs of one program", "runs/s"),
        Figure("of_floor", "share of a bare posix_spawn loop", "x", Aim(least=0.8)),
    ),
)

ROWS = (HANDLERS, PROGRAMS)

"""Rows about the engine: what waits for an event, what an event starts, and how runs get on."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from growth_functions import ONE_HANDLER, function, handler, program, write
from growth_row import Aim, Figure, Figures, Measure, Row
from local import Workload
from server import FUNCTIONS, BenchError, FinishLine, Server, Watcher

_REQUEST = 1000  # events in one request: the most that a server takes
_SENDERS = 8
_STEP = "step.py"
_SCRIPT = "echo '{}'\n"


def send(server: Server, name: str, count: int, **data: Any) -> None:
    """So many events, as few requests as may be."""
    for first in range(0, count, _REQUEST):
        numbers = range(first, min(first + _REQUEST, count))
        server.send([{"name": name, "data": {"number": n, **data}} for n in numbers])


def w1(server: Server, runs: int = 600) -> float:
    """Runs a second of W1."""
    return Workload(server, FinishLine(server), "handlers").throughput(runs)


# --- handlers --------------------------------------------------------------------------------------------------------


@contextmanager
def open_handlers(size: int, folder: Path) -> Iterator[Measure]:
    code = (FUNCTIONS / "handlers/steps/two.py").read_text()
    for n in range(size):
        steps = {"first": handler("two.first"), "second": handler("two.second", ["first"])}
        # files that differ: functions share no workers
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
        cold_ms = (time.perf_counter() - began) / size / 2 * 1000  # two workers began in turn

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


# --- programs --------------------------------------------------------------------------------------------------------


@contextmanager
def open_programs(size: int, folder: Path) -> Iterator[Measure]:
    write(folder, function("programs", {"only": program()}), {"step.sh": _SCRIPT})
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
    """The floor: programs a second that a bare loop starts with posix_spawn and waits for, four at a time."""
    import os
    import shutil

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
        Figure("of_floor", "of what a bare posix_spawn loop does", "x", Aim(least=0.8)),
    ),
)


# --- requests that ask for much at once ------------------------------------------------------------------------------


@contextmanager
def open_requests(size: int, folder: Path) -> Iterator[Measure]:
    """So many events at once, over eight connections; and one that wakes a tenth as many runs."""
    write(folder, function("run", {"only": handler("step.only")}), {_STEP: ONE_HANDLER})
    wait = {"step": "$trigger", "async": {"event": "growth/wake", "ttl": "1d"}}
    write(folder, function("waits", {"only": handler("step.only", [wait])}), {_STEP: ONE_HANDLER})
    with Server(folder) as server:
        send(server, "growth/run", 50)
        server.wait_until_ended("growth-run")

        def once() -> Figures:
            figures = {}
            for key, name in (("nothing_ms", "growth/nothing"), ("runs_ms", "growth/run")):
                figures[key] = _longest(server, lambda name=name: _flood(server, name, size))
                server.wait_until_ended("growth-run")
            send(server, "growth/waits", size // 10)
            server.wait_until_idle()
            figures["wakes_ms"] = _longest(server, lambda: _wake(server))
            return {**figures, "memory_mb": server.memory()["server_mb"]}

        yield once


def _longest(server: Server, act: Any) -> float:
    """The longest that somebody else waited for an answer, in ms."""
    watcher = Watcher(server)
    with watcher.running():
        act()
    return watcher.longest * 1000


def _flood(server: Server, name: str, count: int) -> None:
    threads = [
        threading.Thread(target=send, args=(server.another(), name, math.ceil(count / _SENDERS)))
        for _ in range(_SENDERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _wake(server: Server) -> None:
    server.send([{"name": "growth/wake"}])
    server.wait_until_ended("growth-waits")


REQUESTS = Row(
    "requests",
    "events at once, of eight senders",
    (800, 8_000, 80_000),
    (80, 400, 1_600),
    open_requests,
    (
        Figure("nothing_ms", "longest wait of others: events that start nothing", "ms", Aim(most=50)),
        Figure("runs_ms", "... events that start a run each", "ms", Aim(most=50)),
        Figure("wakes_ms", "... one event that wakes a tenth as many runs", "ms", Aim(most=50)),
        Figure("memory_mb", "memory of the server, peak", "MB"),
    ),
    rounds=1,
)


# --- waits and triggers ----------------------------------------------------------------------------------------------

_MATCHES = {
    "keyed": "async.data.id == event.data.number",
    "beside": "async.data.size > event.data.number && async.data.id == event.data.number",
    "by_name": "async.data.size > event.data.number",
}
_ASKED = 100


@contextmanager
def open_waits(size: int, folder: Path) -> Iterator[Measure]:
    for kind, match in _MATCHES.items():
        wait = {"step": "$trigger", "async": {"event": f"growth/answer.{kind}", "match": match, "ttl": "1d"}}
        write(folder, function(f"waits-{kind}", {"only": handler("step.only", [wait])}), {_STEP: ONE_HANDLER})
    with Server(folder) as server:
        for kind in _MATCHES:
            send(server, f"growth/waits-{kind}", size)
        server.wait_until_idle()

        def once() -> Figures:
            return {kind: _cpu_ms(server, f"growth/answer.{kind}") for kind in _MATCHES}

        once()
        yield lambda: {**(figures := once()), "by_name_us": figures["by_name"] * 1000 / size}


def _cpu_ms(server: Server, name: str) -> float:
    """CPU time that the server uses for one event, in ms. It is far from all that is waited for."""
    before = server.cpu_s()
    for _ in range(_ASKED):
        server.send([{"name": name, "data": {"id": -1, "size": -1}}])
    server.wait_until_idle()
    return (server.cpu_s() - before) * 1000 / _ASKED


WAITS = Row(
    "waits",
    "open waits for an event",
    (100, 1_000, 10_000),
    (10, 100, 500),
    open_waits,
    (
        Figure("keyed", "an event, CPU: found by an equality", "ms", Aim(most_ratio=1.5)),
        Figure("beside", "... found by an equality beside an inequality", "ms", Aim(most_ratio=1.5)),
        Figure("by_name", "... by an inequality alone", "ms"),
        Figure("by_name_us", "... for each such wait", "us", Aim(most=10)),
    ),
)


@contextmanager
def open_triggers(size: int, folder: Path) -> Iterator[Measure]:
    for n in range(size):
        its = function(
            f"triggers-{n}",
            {"only": handler("step.only")},
            event="growth/kinds",
            condition=f"event.data.kind == 'k{n}'",
        )
        write(folder, its, {_STEP: ONE_HANDLER})
    with Server(folder) as server:
        began = time.perf_counter()
        server.send([{"name": "growth/kinds", "data": {"kind": "none"}}])
        first_ms = (time.perf_counter() - began) * 1000

        def once() -> Figures:
            before, count = server.cpu_s(), 200
            for _ in range(count):
                server.send([{"name": "growth/kinds", "data": {"kind": "none"}}])
            server.wait_until_idle()
            cpu_ms = (server.cpu_s() - before) * 1000 / count
            return {"cpu_ms": cpu_ms, "first_ms": first_ms, "ready_s": server.ready_s}

        yield once


TRIGGERS = Row(
    "triggers",
    "functions on one event, all of whose expressions are false",
    (20, 200, 2_000),
    (5, 20, 100),
    open_triggers,
    (
        Figure("cpu_ms", "an event, CPU", "ms", Aim(most_ratio=2)),
        Figure("first_ms", "the first event", "ms", Aim(most=10)),
        Figure("ready_s", "the server is ready after", "s"),
    ),
)


# --- how runs get on -------------------------------------------------------------------------------------------------


@contextmanager
def open_backlog(size: int, folder: Path) -> Iterator[Measure]:
    steps = {f"s{n}": handler("step.only", [f"s{n - 1}"] if n else []) for n in range(5)}
    write(folder, function("backlog", steps), {_STEP: ONE_HANDLER})
    with Server(folder) as server:
        send(server, "growth/backlog", 50)
        server.wait_until_ended("growth-backlog")

        def once() -> Figures:
            began = time.time()
            send(server, "growth/backlog", size)
            server.wait_until_ended("growth-backlog")
            newest = [
                run for run, _ in zip(server.listed("/v1/runs?function=growth-backlog"), range(size), strict=False)
            ]
            ends = [datetime.fromisoformat(run["ended_at"]).timestamp() - began for run in newest]
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
    write(folder, function("chain", steps), {_STEP: ONE_HANDLER})
    with Server(folder) as server:

        def once() -> Figures:
            before = server.cpu_s()
            seconds = _run_once(server, "chain")
            return {"step_ms": seconds * 1000 / size, "s": seconds, "cpu_ms": (server.cpu_s() - before) * 1000 / size}

        once()
        yield once


def _run_once(server: Server, name: str) -> float:
    """How long one run takes from its start to its end, in seconds."""
    (event_id,) = server.send([{"name": f"growth/{name}", "data": {}}])
    server.wait_until_ended(f"growth-{name}")
    (run,) = server.call("GET", f"/v1/events/{event_id}/runs")["data"]
    if run["status"] != "completed":
        raise BenchError(f"a run of growth-{name} is {run['status']}")
    times = [datetime.fromisoformat(run[key]) for key in ("created_at", "ended_at")]
    return (times[1] - times[0]).total_seconds()


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
    """So many steps side by side, and one after all of them. Ideal is as many runs of one step."""
    names = [f"s{n}" for n in range(size)]
    for kind, step, files in (
        ("handlers", lambda after=(): handler("step.only", after), {_STEP: ONE_HANDLER}),
        ("programs", program, {"step.sh": _SCRIPT}),
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
    began = time.time()
    send(server, f"growth/{name}", count)
    server.wait_until_ended(f"growth-{name}")
    newest = [run for run, _ in zip(server.listed(f"/v1/runs?function=growth-{name}"), range(count), strict=False)]
    return max(datetime.fromisoformat(run["ended_at"]).timestamp() for run in newest) - began


FAN_OUT = Row(
    "fan-out",
    "steps side by side, and one that joins them",
    (10, 100, 998),
    (5, 20, 60),
    open_fan,
    (
        Figure("handlers", "handlers: times as long as as many runs of one step", "x", Aim(most=2)),
        Figure("programs", "`sh` programs", "x", Aim(most=2)),
    ),
)

ROWS = (HANDLERS, PROGRAMS, REQUESTS, WAITS, TRIGGERS, BACKLOG, CHAIN, FAN_OUT)

"""Rows about events: many events at once, and events with many waits and triggers."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from growth_functions import ONE_HANDLER, function, handler, write
from growth_row import Aim, Figure, Figures, Measure, Row
from growth_work import STEP_FILE, send
from server import Server, Watcher

_SENDERS = 8


@contextmanager
def open_requests(size: int, folder: Path) -> Iterator[Measure]:
    """Sends `size` events over eight connections, and one event that wakes a tenth as many runs."""
    write(folder, function("run", {"only": handler("step.only")}), {STEP_FILE: ONE_HANDLER})
    wait = {"step": "$trigger", "async": {"event": "growth/wake", "ttl": "1d"}}
    write(folder, function("waits", {"only": handler("step.only", [wait])}), {STEP_FILE: ONE_HANDLER})
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
    """The longest time that another request waited, in ms."""
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


# --- waits and triggers ---

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
        write(folder, function(f"waits-{kind}", {"only": handler("step.only", [wait])}), {STEP_FILE: ONE_HANDLER})
    with Server(folder) as server:
        for kind in _MATCHES:
            send(server, f"growth/waits-{kind}", size)
        server.wait_until_idle()

        def once() -> Figures:
            return {kind: _cpu_ms(server, f"growth/answer.{kind}") for kind in _MATCHES}

        once()
        yield lambda: {**(figures := once()), "by_name_us": figures["by_name"] * 1000 / size}


def _cpu_ms(server: Server, name: str) -> float:
    """CPU time of the server for one event, in ms. The event has none of the values that are waited for."""
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
        definition = function(
            f"triggers-{n}",
            {"only": handler("step.only")},
            event="growth/kinds",
            condition=f"event.data.kind == 'k{n}'",
        )
        write(folder, definition, {STEP_FILE: ONE_HANDLER})
    with Server(folder) as server:
        server.wait_until_idle()  # the server has printed what it deployed
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

ROWS = (REQUESTS, WAITS, TRIGGERS)

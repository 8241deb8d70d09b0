"""Celery tasks as steps, and functions that answer calls of Celery clients, compared with Celery alone.

All use the same Redis, and steps use the worker of Celery. Tasks do nothing: the way to them is measured.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from measured import Missing, Row
from server import BenchError, Server

TASKS, QUICK_TASKS, ROUNDS = 1000, 200, 3
BATCH = 100
SOURCE = "functions"  # the queue that Stepwell reads
HANDLER = """
def add(given, context):
    return sum(given["event"]["data"]["args"])
"""
APP = """
import os
from celery import Celery
app = Celery("tasks", broker=os.environ["BROKER"], backend=os.environ["BACKEND"])
app.conf.broker_connection_retry_on_startup = True
@app.task
def add(a, b):
    return a + b
"""


def measure(quick: bool) -> list[Row]:
    if shutil.which("redis-server") is None:
        raise Missing("redis-server is not installed; run: apt-get install redis-server")
    if find_spec("celery") is None:
        raise Missing("celery is not installed; run: pip install 'stepwell[celery]'")
    count = QUICK_TASKS if quick else TASKS
    with tempfile.TemporaryDirectory(prefix="stepwell-bench-") as name, _redis(Path(name)) as url:
        folder = Path(name)
        (folder / "tasks.py").write_text(APP)
        env = {**os.environ, "BROKER": f"{url}/0", "BACKEND": f"{url}/1"}
        _write_function(folder, env)
        with _worker(folder, env), Server(folder / "functions", "dev") as server:
            _called(env, BATCH)
            _as_steps(server, BATCH)
            _called(env, BATCH, SOURCE)
            rounds = [
                (_called(env, count), _as_steps(server, count), _called(env, count, SOURCE))
                for _ in range(1 if quick else ROUNDS)
            ]
    alone, steps, functions = (statistics.median(values) for values in zip(*rounds, strict=True))
    return [
        Row("tasks by Celery's client and worker", alone, "tasks/s"),
        Row("tasks as steps", steps, "steps/s", f"{steps / alone:.0%} of Celery"),
        Row("calls that functions answer", functions, "calls/s", f"{functions / alone:.0%} of Celery"),
    ]


def _write_function(folder: Path, env: dict[str, str]) -> None:
    runtime = {"type": "celery", "task": "tasks.add", "args": "[data.n, 1]"}
    runtime |= {"broker": env["BROKER"], "backend": env["BACKEND"]}
    definition = {"id": "add", "triggers": [{"event": "bench/add"}], "steps": {"add": {"runtime": runtime}}}
    handler = {"path": "file://.", "runtime": {"type": "lambda", "handler": "answer.add"}}
    answering = {"id": "answer", "triggers": [{"event": "celery/tasks.add"}], "steps": {"add": handler}}
    for function in (definition, answering):
        place = folder / "functions" / str(function["id"])
        place.mkdir(parents=True)
        (place / "stepwell.json").write_text(json.dumps(function))
    (folder / "functions/answer/answer.py").write_text(HANDLER)
    source = {"type": "celery", "broker": env["BROKER"], "backend": env["BACKEND"], "queue": SOURCE}
    (folder / "functions/sources").mkdir()
    (folder / "functions/sources/calls.yaml").write_text(json.dumps(source))


def _called(env: dict[str, str], count: int, queue: str = "celery") -> float:
    """Tasks a second, by Celery's client: all are sent, then all results are received."""
    from celery import Celery

    with Celery(broker=env["BROKER"], backend=env["BACKEND"], set_as_current=False) as app:
        started = time.perf_counter()
        results = [app.send_task("tasks.add", (n, 1), queue=queue) for n in range(count)]
        values = [result.get(timeout=60) for result in results]
        spent = time.perf_counter() - started
    if values != [n + 1 for n in range(count)]:
        raise BenchError("Celery returned wrong results")
    return count / spent


def _as_steps(server: Server, count: int) -> float:
    """Steps a second, from before the first event is sent to the end of the last run."""
    started = time.time()
    ids: set[str] = set()
    for first in range(0, count, BATCH):
        ids.update(server.send([{"name": "bench/add", "data": {"n": n}} for n in range(first, first + BATCH)]))
    while server.call("GET", "/v1/runs?function=add&status=running&limit=1")["data"]:
        time.sleep(0.2)  # seldom, because each answer takes the server's time
    runs = list(islice(server.listed("/v1/runs?function=add"), count))
    if {run["event_id"] for run in runs} != ids or any(run["status"] != "completed" for run in runs):
        raise BenchError("some tasks did not end")
    if sorted(run["output"]["add"] for run in runs) != [n + 1 for n in range(count)]:
        raise BenchError("some tasks have a wrong result")
    return count / (max(datetime.fromisoformat(run["ended_at"]).timestamp() for run in runs) - started)


@contextmanager
def _redis(folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        ["redis-server", "--port", str(port), "--save", ""], cwd=folder, stdout=subprocess.DEVNULL
    )
    try:
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _worker(folder: Path, env: dict[str, str]) -> Iterator[None]:
    """A worker with Celery's default pool, ready to work."""
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "--concurrency", "2", "--loglevel", "ERROR"]
    with (folder / "worker.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait()

"""Jobs through workers of Faktory: with the package for Node, and with connections that only FETCH and ACK.

The jobs are queued first. A rate counts from the claim of the first job to the end of the last run. W1 (two handlers a
run) is measured beside it, because the speed of machines differs. The package fetches one job after another, so several
processes of it do more.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from local import Workload
from measured import Missing, Row
from server import BenchError, FinishLine, Server

JOBS, QUICK_JOBS, ROUNDS = 2_000, 500, 3
BATCH, CONNECTIONS = 100, 64
PACKAGE = "faktory-worker"
WITH_PACKAGE = f"""
const faktory = require("{PACKAGE}");
faktory.register("Nothing", async () => {{}});
faktory.work({{ queues: ["default"], concurrency: {CONNECTIONS} }});
"""
BARE = f"""
const net = require("net"), hello = {{ v: 2, wid: "bare", hostname: "x", pid: 1, labels: [] }};
for (let n = 0; n < {CONNECTIONS}; n++) {{
  const socket = net.connect(+process.argv[2], "127.0.0.1");
  socket.setNoDelay(true);
  let received = "";
  socket.on("data", (data) => {{
    received += data;
    if (!received.endsWith("\\r\\n") || /^\\$\\d+\\r\\n$/.test(received)) return;
    if (received.startsWith("+HI")) socket.write(`HELLO ${{JSON.stringify(hello)}}\\r\\n`);
    else if (received[0] === "$" && received[1] !== "-")
      socket.write(`ACK {{"jid":"${{/"jid":"([^"]+)"/.exec(received)[1]}}"}}\\r\\n`);
    else socket.write("FETCH default\\r\\n");
    received = "";
  }});
}}
"""


def measure(quick: bool) -> list[Row]:
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise Missing("node and npm are not installed; run: apt-get install nodejs npm")
    count = QUICK_JOBS if quick else JOBS
    with tempfile.TemporaryDirectory(prefix="stepwell-bench-") as name:
        folder = Path(name)
        _install(folder)
        _write_function(folder)
        port = _free_port()
        with Server(folder / "functions", "dev", None, "--faktory", f"127.0.0.1:{port}") as server:
            with_package, bare = (
                statistics.median(_rate(server, folder, script, port, count) for _ in range(1 if quick else ROUNDS))
                for script in (WITH_PACKAGE, BARE)
            )
    with Server() as server:
        w1 = Workload(server, FinishLine(server), "handlers").throughput(QUICK_JOBS)
    beside = f"W1: {w1:,.0f} runs/s, of two steps"
    return [
        Row(f"jobs through {PACKAGE}, {CONNECTIONS} at once", with_package, "jobs/s", beside),
        Row(f"jobs through {CONNECTIONS} connections, FETCH and ACK", bare, "jobs/s", beside),
    ]


def _install(folder: Path) -> None:
    command = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise Missing(f"npm cannot install {PACKAGE}: {done.stderr[-300:]}")


def _write_function(folder: Path) -> None:
    runtime = {"type": "faktory", "jobtype": "Nothing"}
    definition = {"id": "jobs", "triggers": [{"event": "bench/job"}], "steps": {"a": {"runtime": runtime}}}
    (folder / "functions").mkdir()
    (folder / "functions/stepwell.json").write_text(json.dumps(definition))


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _rate(server: Server, folder: Path, script: str, port: int, count: int) -> float:
    """Jobs a second. All of them are queued before the worker starts."""
    ids: set[str] = set()
    for first in range(0, count, BATCH):
        ids.update(server.send([{"name": "bench/job", "data": {"n": n}} for n in range(first, first + BATCH)]))
    with _worker(folder, script, port):
        server.wait_until_ended("jobs")
    runs = [run for run in server.listed("/v1/runs?function=jobs") if run["event_id"] in ids]
    attempts = [run["steps"]["a"]["attempts"] for run in runs]
    if len(runs) != count or any(len(some) != 1 or some[0]["status"] != "completed" for some in attempts):
        raise BenchError(f"of {count:,} jobs, {len(runs):,} have runs, and not each was executed once")
    began = min(datetime.fromisoformat(some[0]["started_at"]) for some in attempts)
    ended = max(datetime.fromisoformat(run["ended_at"]) for run in runs)
    return count / (ended - began).total_seconds()


@contextmanager
def _worker(folder: Path, script: str, port: int) -> Iterator[None]:
    file = folder / "worker.js"
    file.write_text(script)
    env = {**os.environ, "FAKTORY_URL": f"tcp://127.0.0.1:{port}"}
    with (folder / "worker.log").open("wb") as log:
        process = subprocess.Popen(["node", str(file), str(port)], cwd=folder, env=env, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.kill()
        process.wait()

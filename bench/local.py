"""Measures a real `stepwell dev` on this machine from outside. README.md describes what is measured, and how.

All numbers are measured by an ordinary client. A lost run or event is an error.
"""

from __future__ import annotations

import itertools
import json
import math
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from report import Numbers, in_readme, machine, show
from rich.console import Console
from server import PATIENCE_S, BenchError, FinishLine, Server

HERE = Path(__file__).resolve().parent
ROUNDS = 3  # of a throughput; the speed of the machine varies more than most results
BATCH = 100
CONNECTIONS = 8
Progress = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Sizes:
    starts: int = 5
    latencies: int = 200
    runs: int = 3_000
    program_latencies: int = 50
    program_runs: int = 300
    seconds: int = 5
    fill: int = 10_000


QUICK = Sizes(2, 20, 200, 10, 30, 1, 300)


@dataclass(frozen=True, slots=True)
class Workload:
    """W1 on a server: the event `bench/<kind>` starts the function `bench-<kind>`."""

    server: Server
    line: FinishLine
    kind: str

    def measure(self, latencies: int, runs: int) -> Numbers:
        self.throughput(BATCH)  # starts and warms the workers
        self.latency(max(5, latencies // 10))
        latency = self.latency(latencies)
        return {**latency, "runs_per_s": statistics.median(self.throughput(runs) for _ in range(ROUNDS))}

    def latency(self, count: int) -> Numbers:
        """Latencies of single runs in ms: from the POST to the finish line, and until the API shows `completed`."""
        finished, seen = [], []
        for number in range(count):
            started = time.perf_counter()
            (event_id,) = self.server.send(self._events(number, 1))
            finished.append((self.line.wait(1) - started) * 1000)
            while self.server.call("GET", f"/v1/events/{event_id}/runs")["data"][0]["status"] != "completed":
                pass
            seen.append((time.perf_counter() - started) * 1000)
        p99 = sorted(finished)[math.ceil(len(finished) * 0.99) - 1]
        return {"median_ms": statistics.median(finished), "p99_ms": p99, "seen_ms": statistics.median(seen)}

    def throughput(self, count: int) -> float:
        """Runs per second, from before the first POST to the `ended_at` of the last run."""
        sent_at = time.time()
        ids: set[str] = set()
        for first in range(0, count, BATCH):
            ids.update(self.server.send(self._events(first, min(BATCH, count - first))))
        self.line.wait(count)
        self.server.wait_until_ended(f"bench-{self.kind}")
        newest = itertools.islice(self.server.listed(f"/v1/runs?function=bench-{self.kind}"), count)
        runs = [run for run in newest if run["event_id"] in ids and run["status"] == "completed"]
        if len(runs) != count:
            raise BenchError(f"only {len(runs)} of {count} runs completed")
        return count / (max(datetime.fromisoformat(run["ended_at"]).timestamp() for run in runs) - sent_at)

    def _events(self, first: int, count: int) -> list[dict[str, Any]]:
        name, finish = f"bench/{self.kind}", str(self.line.path)
        return [{"name": name, "data": {"number": n, "finish": finish}} for n in range(first, first + count)]


def start(sizes: Sizes, progress: Progress) -> Numbers:
    times = []
    for number in range(sizes.starts):
        progress(f"start: start-up {number + 1} of {sizes.starts}")
        with Server() as server:
            times.append(server.ready_s)
    return {"ready_s": statistics.median(times)}


def w1(sizes: Sizes, progress: Progress) -> Numbers:
    progress(f"W1: two handlers, {sizes.latencies} one by one, {sizes.runs:,} at once")
    with Server() as server:
        numbers = Workload(server, FinishLine(server), "handlers").measure(sizes.latencies, sizes.runs)
        return {**numbers, **server.memory()}


def w1p(sizes: Sizes, progress: Progress) -> Numbers:
    progress(f"W1p: two programs, {sizes.program_latencies} one by one, {sizes.program_runs} at once")
    with Server() as server:
        workload = Workload(server, FinishLine(server), "programs")
        return {**workload.measure(sizes.program_latencies, sizes.program_runs), **server.memory()}


def w2(sizes: Sizes, progress: Progress) -> Numbers:
    with Server() as server:
        progress(f"W2: single events, {CONNECTIONS} connections, {sizes.seconds} s")
        single, answered = flood(server, "bench/nothing.single", 1, sizes.seconds)
        progress(f"W2: batches of {BATCH}, {CONNECTIONS} connections, {sizes.seconds} s")
        batched, answered_batched = flood(server, "bench/nothing.batched", BATCH, sizes.seconds)
        numbers = {"single_per_s": single, "batched_per_s": batched, **server.memory()}
        progress("W2: is every event there?")
        check_stored(server, "bench/nothing.single", 1, answered)
        check_stored(server, "bench/nothing.batched", BATCH, answered_batched)
        return numbers


def flood(server: Server, name: str, batch: int, seconds: int) -> tuple[float, int]:
    """Sends events with wrk. Returns the events per second that were answered with 200, and their number."""
    events = [{"name": name, "data": {"number": n}} for n in range(batch)]
    body = server.folder / f"{batch}.json"
    body.write_text(json.dumps(events[0] if batch == 1 else events))
    url = f"http://127.0.0.1:{server.port}/e/bench"
    argv = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(HERE / "post.lua"), url, "--", str(body)]
    server.hang_up()
    done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + PATIENCE_S)
    if done.returncode:
        raise BenchError(f"wrk failed: {done.stderr or done.stdout}")
    value = json.loads(done.stdout.splitlines()[-1])
    if value["refused"] or value["broken"]:
        raise BenchError(f"{value['refused']} requests were refused, {value['broken']} connections broke")
    answered = value["requests"] * batch
    return answered / value["seconds"], answered


def check_stored(server: Server, name: str, batch: int, answered: int) -> None:
    """Raises BenchError unless every event that was answered with 200 is stored, and no more than were sent."""
    kept = sum(1 for _ in server.listed(f"/v1/events?name={name}"))
    if not answered <= kept <= answered + CONNECTIONS * batch:  # each connection may have an open request at the end
        raise BenchError(f"{answered:,} events were answered with 200, but the server has {kept:,}")


def w1_full(sizes: Sizes, progress: Progress) -> Numbers:
    with Server() as server:
        workload = Workload(server, FinishLine(server), "handlers")
        progress("W1-full: two handlers, with an empty database")
        before = workload.measure(sizes.latencies, sizes.runs)
        progress(f"W1-full: {sizes.fill:,} runs that end, {sizes.fill:,} waits that stay open")
        for first in range(0, sizes.fill, BATCH):
            ids = range(first, min(first + BATCH, sizes.fill))
            server.send([{"name": name, "data": {"id": i}} for name in ("bench/fill", "bench/wait") for i in ids])
        server.wait_until_ended("bench-fill")
        waiting = server.listed("/v1/runs?function=bench-wait&status=running")
        if sum(run["steps"]["never"]["status"] == "waiting" for run in waiting) != sizes.fill:
            raise BenchError(f"not all of {sizes.fill:,} runs are waiting")
        progress("W1-full: two handlers, with a full database")
        after = workload.measure(sizes.latencies, sizes.runs)
        empty = {f"{key}_empty": value for key, value in before.items()}
        change = {f"{key}_change": after[key] / before[key] - 1 for key in ("median_ms", "runs_per_s")}
        return {**after, **empty, **change, **server.memory()}


WORKLOADS = {"start": start, "W1": w1, "W1p": w1p, "W2": w2, "W1-full": w1_full}


def measure(names: list[str], sizes: Sizes) -> dict[str, Numbers]:
    """Runs these workloads one after the other. Raises BenchError."""
    unknown = [name for name in names if name not in WORKLOADS]
    if unknown:
        raise BenchError(f"{', '.join(unknown)}: unknown; workloads are {', '.join(WORKLOADS)}")
    if "W2" in names and shutil.which("wrk") is None:
        raise BenchError("W2 needs wrk, which is not on PATH: `apt-get install wrk` (or leave W2 out with --only)")
    with Console(stderr=True).status("") as status:
        return {name: WORKLOADS[name](sizes, status.update) for name in names}


def main(
    only: Annotated[str, typer.Option(help="Workloads, separated by commas.")] = ",".join(WORKLOADS),
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the numbers to this file, as JSON.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Measure little of everything, to see whether it works.")
    ] = False,
    write_readme: Annotated[bool, typer.Option("--write-readme", help="Put the table into bench/README.md.")] = False,
) -> None:
    """Measures Stepwell on this machine."""
    names = [name.strip() for name in only.split(",")]
    try:
        if write_readme and (quick or set(names) != set(WORKLOADS)):
            raise BenchError("--write-readme needs all workloads: leave out --quick and --only")
        results = measure(names, QUICK if quick else Sizes())
        show(results)
        if json_file is not None:
            document = {"machine": machine(), "quick": quick, "results": results}
            json_file.write_text(json.dumps(document, indent=2) + "\n")
        if write_readme:
            readme = HERE / "README.md"
            readme.write_text(in_readme(readme.read_text(), results, machine()))
    except BenchError as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    typer.run(main)

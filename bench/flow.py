"""Measures what limits cost on this machine: W1 with a limit for each of 1,000 keys beside W1 without, in turns.

Then it measures the start of runs of other keys while one key has a long queue.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from local import BATCH, Workload
from rich.console import Console
from server import FUNCTIONS, FinishLine, Server

KEYS = 1000
LIMIT = 10


def main(
    rounds: Annotated[int, typer.Option(help="Pairs of measurements.")] = 5,
    runs: Annotated[int, typer.Option(help="Runs in each measurement.")] = 2000,
    queued: Annotated[int, typer.Option(help="Runs that wait for one key.")] = 100_000,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the numbers to this file.")] = None,
) -> None:
    console = Console(stderr=True)
    numbers = {**keyed_limit(rounds, runs, console), **backlog(queued, console)}
    for name, value in numbers.items():
        console.print(f"{name:28} {value:,.2f}")
    if as_json is not None:
        as_json.write_text(json.dumps(numbers))


def keyed_limit(rounds: int, runs: int, console: Console) -> dict[str, float]:
    """Runs per second of W1 without and with `concurrency: {limit: 10, key}` over 1,000 keys, and the ratio."""
    with tempfile.TemporaryDirectory() as folder:
        limited = Path(folder) / "limited"
        write_w1(limited, {"limit": LIMIT, "key": f"int(event.data.number) % {KEYS}"})
        ratios, without, within = [], [], []
        with Server() as plain, Server(limited) as server:
            sides = [Workload(it, FinishLine(it), "handlers") for it in (plain, server)]
            for side in sides:
                side.throughput(BATCH)
            for number in range(rounds):
                console.print(f"W1 with a limit: pair {number + 1} of {rounds}")
                first, second = (side.throughput(runs) for side in sides)
                without.append(first)
                within.append(second)
                ratios.append(second / first)
                sides[0], sides[1] = sides
    return {
        "runs_per_s": statistics.median(without),
        "limited_runs_per_s": statistics.median(within),
        "ratio": statistics.median(ratios),
    }


def write_w1(folder: Path, concurrency: dict[str, Any]) -> None:
    """Copies the functions of W1, with a limit."""
    shutil.copytree(FUNCTIONS, folder)
    file = folder / "handlers" / "stepwell.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), "concurrency": concurrency}))


def backlog(queued: int, console: Console) -> dict[str, float]:
    """The latency of runs of other keys, in ms, before and while one key has a queue."""
    with tempfile.TemporaryDirectory() as folder:
        functions = Path(folder) / "functions"
        write_w1(functions, {"limit": 1, "key": "event.data.key"})
        code = functions / "handlers" / "steps" / "two.py"
        sleep = 'import time; time.sleep(event["event"]["data"].get("sleep", 0))'
        code.write_text(code.read_text().replace("    return {", f"    {sleep}\n    return {{", 1))
        with Server(functions) as server:
            line = FinishLine(server)
            latencies(server, line, 20)
            before = latencies(server, line, 200)
            console.print(f"queueing {queued:,} runs of one key")
            slow = {"number": 0, "finish": str(line.path), "key": "busy", "sleep": 3600}
            for first in range(0, queued, BATCH):
                server.send([{"name": "bench/handlers", "data": slow}] * min(BATCH, queued - first))
            after = latencies(server, line, 200)
    return {"other_keys_p99_ms": p99(before), "other_keys_p99_ms_queued": p99(after)}


def latencies(server: Server, line: FinishLine, count: int) -> list[float]:
    found = []
    for number in range(count):
        data = {"number": number, "finish": str(line.path), "key": f"k{number}"}
        started = time.perf_counter()
        server.send([{"name": "bench/handlers", "data": data}])
        found.append((line.wait(1) - started) * 1000)
    return found


def p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99) - 1]


if __name__ == "__main__":
    typer.run(main)

"""Steps that are WebAssembly modules, compared with programs: the same checksum, as a module, in shell and in Python.

The module is the one of examples/webassembly. All run on one server, one kind after the other.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import time
from datetime import datetime
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from measured import Missing, Row
from server import BenchError, Server

MODULE = Path(__file__).resolve().parents[1] / "examples/webassembly/checksum/main.wasm"
RUNS, QUICK_RUNS, ROUNDS = {"wasm": 1000, "shell": 300, "python": 100}, {"wasm": 100, "shell": 50, "python": 30}, 3
STARTS = 100
BATCH = 50
PROGRAMS = {
    "shell": ("main.sh", '#!/bin/sh\necho \'{"crc32": "3610a686", "bytes": 5}\'\n'),
    "python": (
        "main.py",
        "import json, sys, zlib\ntext = json.load(sys.stdin)['event']['data']['text'].encode()\n"
        "print(json.dumps({'crc32': f'{zlib.crc32(text):08x}', 'bytes': len(text)}))\n",
    ),
}
EXPECTED = {"crc32": "3610a686", "bytes": 5}


def measure(quick: bool) -> list[Row]:
    if find_spec("wasmtime") is None:
        raise Missing("wasmtime is not installed; run: pip install 'stepwell[wasm]'")
    sizes = QUICK_RUNS if quick else RUNS
    with tempfile.TemporaryDirectory(prefix="stepwell-bench-") as name:
        folder = Path(name)
        for kind in sizes:
            _write_function(folder / kind, kind)
        with Server(folder, "dev") as server:
            found: dict[str, list[float]] = {kind: [] for kind in sizes}
            for kind, count in sizes.items():
                _steps_per_s(server, kind, BATCH)  # starts the workers
                for _ in range(1 if quick else ROUNDS):
                    found[kind].append(_steps_per_s(server, kind, count))
            start_ms = _attempt_ms(server, STARTS)
    medians = {kind: statistics.median(values) for kind, values in found.items()}
    module, shell, python = (medians[kind] for kind in ("wasm", "shell", "python"))
    return [
        Row("a module in C", module, "steps/s", f"{module / shell:.1f} x shell, {module / python:.1f} x Python"),
        Row("a program in shell", shell, "steps/s"),
        Row("a program in Python", python, "steps/s"),
        Row("an attempt of a warm module, from its start to its end", start_ms * 1000, "µs"),
    ]


def _write_function(folder: Path, kind: str) -> None:
    step = folder / "step"
    step.mkdir(parents=True)
    # By convention, a program in Python runs with the first `python3` on PATH, which may be a slow wrapper.
    python = {"type": "lambda", "command": [sys.executable, "main.py"]}
    runtimes = {"wasm": {"type": "wasm", "memory": 64}, "shell": {"type": "lambda"}, "python": python}
    if kind == "wasm":
        shutil.copy(MODULE, step / "main.wasm")
    else:
        name, text = PROGRAMS[kind]
        (step / name).write_text(text)
        (step / name).chmod(0o755)
    steps = {"checksum": {"path": "file://step", "runtime": runtimes[kind]}}
    definition = {"id": kind, "triggers": [{"event": f"bench/{kind}"}], "steps": steps}
    (folder / "stepwell.json").write_text(json.dumps(definition))


def _steps_per_s(server: Server, kind: str, count: int) -> float:
    """Steps a second, from before the first POST to the `ended_at` of the last run."""
    events = [{"name": f"bench/{kind}", "data": {"text": "hello"}}] * count
    sent_at = time.time()
    ids: set[str] = set()
    for first in range(0, count, BATCH):
        ids.update(server.send(events[first : first + BATCH]))
    server.wait_until_ended(kind)
    runs = [run for run in islice(server.listed(f"/v1/runs?function={kind}"), count) if run["event_id"] in ids]
    if [run["output"] for run in runs if run["status"] == "completed"] != [{"checksum": EXPECTED}] * count:
        raise BenchError(f"not all of {count} runs of {kind} have completed with the right output")
    return count / (max(datetime.fromisoformat(run["ended_at"]).timestamp() for run in runs) - sent_at)


def _attempt_ms(server: Server, count: int) -> float:
    """The median time of an attempt in ms, one attempt at a time."""
    times = []
    for _ in range(count):
        (event,) = server.send([{"name": "bench/wasm", "data": {"text": "hello"}}])
        server.wait_until_ended("wasm")
        (run,) = server.call("GET", f"/v1/events/{event}/runs")["data"]
        (attempt,) = server.call("GET", f"/v1/runs/{run['id']}")["steps"]["checksum"]["attempts"]
        begin, end = (datetime.fromisoformat(attempt[name]).timestamp() for name in ("started_at", "ended_at"))
        times.append((end - begin) * 1000)
    return statistics.median(times)

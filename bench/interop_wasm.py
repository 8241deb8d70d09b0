"""Steps that are WebAssembly modules, compared with programs: the same checksum, as a module, and as programs in C, in
shell and in Python, and as a Python handler, which shows what the server alone can do.

The module is the one of examples/webassembly, and the program in C is its source. All run on one server, in turn. The
CPU time of a step is that of the server and of the processes that run steps.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from measured import Missing, Row
from server import BenchError, Server

EXAMPLE = Path(__file__).resolve().parents[1] / "examples/webassembly/checksum"
RUNS = {"wasm": 1000, "handler": 1000, "c": 300, "shell": 300, "python": 100}
QUICK_RUNS, ROUNDS = {"wasm": 100, "handler": 100, "c": 50, "shell": 50, "python": 30}, 3
NAMES = {
    "wasm": "a module in C",
    "handler": "a Python handler",
    "c": "a program in C",
    "shell": "a program in shell",
    "python": "a program in Python",
}
STARTS = 100
BATCH = 50
HANDLER = (
    "import sys, zlib\ndef handler(event, context):\n    text = event['event']['data']['text'].encode()\n"
    "    print(f'a text of {len(text)} bytes', file=sys.stderr)\n"
    "    return {'crc32': f'{zlib.crc32(text):08x}', 'bytes': len(text)}\n"
)
PROGRAMS = {
    "handler": ("app.py", HANDLER),
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
    sizes = dict(QUICK_RUNS if quick else RUNS)
    if shutil.which("cc") is None:
        del sizes["c"]
    with tempfile.TemporaryDirectory(prefix="stepwell-bench-") as name:
        folder = Path(name)
        for kind in sizes:
            _write_function(folder / kind, kind)
        with Server(folder, "dev") as server:
            for kind in sizes:
                _measure(server, kind, BATCH)  # starts the workers
            rounds = [
                {kind: _measure(server, kind, count) for kind, count in sizes.items()}
                for _ in range(1 if quick else ROUNDS)
            ]
            start_ms = _attempt_ms(server, STARTS)
    found = {kind: _median([measured[kind] for measured in rounds]) for kind in sizes}
    start = Row("an attempt of a warm module, from its start to its end", start_ms * 1000, "µs")
    return [Row(NAMES[kind], found[kind].rate, "steps/s", _compared(found, kind)) for kind in sizes] + [start]


@dataclass(frozen=True, slots=True)
class Measured:
    """Steps a second, and the CPU time of a step in µs: of the server, and of the processes that run steps."""

    rate: float
    server: float
    steps: float


def _median(found: list[Measured]) -> Measured:
    return Measured(*(statistics.median(getattr(one, name) for one in found) for name in Measured.__slots__))


def _compared(found: dict[str, Measured], kind: str) -> str:
    own, module = found[kind], found["wasm"]
    cpu = f"CPU {own.server:.0f} + {own.steps:.0f} µs"
    if kind == "wasm":
        return cpu
    costs = (own.server + own.steps) / (module.server + module.steps)
    return f"{cpu}, {costs:.1f} x the module's; the module runs {module.rate / own.rate:.1f} x as many"


def _measure(server: Server, kind: str, count: int) -> Measured:
    server.wait_until_idle()
    before = server.cpu_s(), server.steps_cpu_s()
    rate = _steps_per_s(server, kind, count)
    server.wait_until_idle()
    of_server, of_steps = (
        (now - then) / count * 1e6 for now, then in zip((server.cpu_s(), server.steps_cpu_s()), before, strict=True)
    )
    return Measured(rate, of_server, of_steps)


def _write_function(folder: Path, kind: str) -> None:
    step = folder / "step"
    step.mkdir(parents=True)
    # By convention, a program in Python runs with the first `python3` on PATH, which may be a slow wrapper.
    python = {"type": "lambda", "command": [sys.executable, "main.py"]}
    runtimes = {"wasm": {"type": "wasm", "memory": 64}, "shell": {"type": "lambda"}, "python": python}
    runtimes["handler"] = {"type": "lambda", "handler": "app.handler"}
    runtimes["c"] = {"type": "lambda", "command": ["./main"]}
    if kind == "wasm":
        shutil.copy(EXAMPLE / "main.wasm", step / "main.wasm")
    elif kind == "c":
        subprocess.run(["cc", "-O2", "-o", step / "main", EXAMPLE / "main.c"], check=True)
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

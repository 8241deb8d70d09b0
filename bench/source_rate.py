"""Events a second through a source: records that wait in a broker when the server starts to read them.

The reference is `POST /e` with as large batches, by one connection to the same server.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from measured import Row
from server import PATIENCE_S, BenchError, Server

BATCH = 500
_NOTHING = {
    "id": "nothing",
    "triggers": [{"event": "bench/never"}],
    "steps": {"a": {"path": "file://.", "runtime": {"type": "lambda", "command": ["true"]}}},
}

Fill = Callable[[Path, Iterator[bytes]], AbstractContextManager[dict[str, Any]]]


def rows(fill: Fill, quick: bool) -> list[Row]:
    """`fill` starts a broker in a folder, adds records with these bodies, and answers a source that reads them."""
    count = 20_000 if quick else 60_000
    with tempfile.TemporaryDirectory(prefix="stepwell-bench-") as folder:
        functions = Path(folder, "functions", "nothing")
        functions.mkdir(parents=True)
        (functions / "stepwell.json").write_text(json.dumps(_NOTHING))
        with fill(Path(folder, "broker"), _bodies(count)) as source, Server(Path(folder, "functions")) as server:
            posted = _post(server, count)
            fields = {**source, "event": "order/{{ body.kind }}", "batch": BATCH}
            server.call("PUT", "/v1/sources/orders", json.dumps(fields).encode())
            read = _read(server, count)
    reference = f"{posted:,.0f} events/s by POST /e, {BATCH} a request"
    return [Row("records that become events", read, "events/s", reference)]


def _bodies(count: int) -> Iterator[bytes]:
    for number in range(count):
        yield json.dumps({"kind": "placed", "number": number, "customer": "ada", "total": 12.5}).encode()


def _post(server: Server, count: int) -> float:
    events = [{"name": "order/placed", "data": json.loads(body)} for body in _bodies(count)]
    started = time.perf_counter()
    for first in range(0, count, BATCH):
        server.send(events[first : first + BATCH])
    return count / (time.perf_counter() - started)


def _read(server: Server, count: int) -> float:
    """From the first records that were read to the last. Raises BenchError if not every record made one event."""
    deadline = time.monotonic() + PATIENCE_S
    started, before = 0.0, 0
    while True:
        found = server.call("GET", "/v1/sources/orders")
        now = time.perf_counter()
        if found["events"] and not started:
            started, before = now, found["events"]
        if found["events"] >= count:
            break
        if time.monotonic() > deadline:
            raise BenchError(f"the source is not done: {found}")
        time.sleep(0.02)
    if found["events"] != count or found["quarantined"]:
        raise BenchError(f"not every record made one event: {found}")
    return (count - before) / max(now - started, 0.001)

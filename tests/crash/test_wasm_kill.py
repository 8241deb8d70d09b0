"""The server is killed while WebAssembly modules run, and so are their processes: no event is lost or run twice."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.crash.test_kill import all_runs
from tests.local.attempts import is_running
from tests.servers import QUICK, Json, api, eventually, new_key, serve, write_function
from tests.wasm import modules

pytest.importorskip("wasmtime", reason="wasmtime is not installed")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")

EVENTS = 200


def wasm(folder: str, **fields: object) -> Json:
    return {"path": f"file://{folder}", "runtime": {"type": "wasm"}, **QUICK, **fields}


def write_module(folder: Path, content: bytes) -> None:
    folder.mkdir(parents=True)
    (folder / "main.wasm").write_bytes(content)


def processes(functions: Path) -> set[int]:
    """The processes that run modules of the server whose functions are in this folder, by the place of their code."""
    mark = os.fsencode(functions.parent)
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if b"wasm_worker.py" in line and b"\0compile\0" not in line and mark in line and is_running(int(entry.name)):
            found.add(int(entry.name))
    return found


def test_kills_of_the_server_and_of_modules_lose_and_duplicate_nothing(tmp_path: Path) -> None:
    folder, db = tmp_path / "functions", tmp_path / "db"
    write_module(folder / "step", modules.prints(b'{"done": true}'))
    write_function(folder, a=wasm("step", retries={"attempts": 3, "backoff": {"initial": "10ms"}}))
    key = new_key(db)
    with serve(folder, db, "--no-fsync") as server, api(server, key) as http:
        events = [{"name": "go", "id": f"go-{n}"} for n in range(EVENTS)]
        assert http.http.post("/e", json=events).status_code == 200
        eventually(lambda: any(run["status"] == "completed" for run in all_runs(http)))
        for pid in processes(folder):
            os.kill(pid, signal.SIGKILL)
        before = len(http.get("/v1/runs", status="completed", limit=1000)["data"])
        eventually(lambda: len(http.get("/v1/runs", status="completed", limit=1000)["data"]) > before)
        server.kill()
    with serve(folder, db, "--no-fsync") as server, api(server, key) as http:
        eventually(lambda: not http.get("/v1/runs", status="running", limit=1)["data"], every=0.1)
        runs = all_runs(http)
        assert server.stop() == 0
    assert sorted(run["event_id"] for run in runs) == sorted(event["id"] for event in events)
    assert [run["output"] for run in runs] == [{"a": {"done": True}}] * EVENTS
    eventually(lambda: not processes(folder))


def test_no_module_of_a_killed_server_runs_beside_its_next_attempt(tmp_path: Path) -> None:
    folder, db = tmp_path / "functions", tmp_path / "db"
    write_module(folder / "step", modules.loops())
    write_function(folder, a=wasm("step"))
    key = new_key(db)
    with serve(folder, db, "--no-fsync") as server, api(server, key) as http:
        event = http.send()
        first = eventually(lambda: processes(folder))
        server.kill()
    with serve(folder, db, "--no-fsync", "--grace", "0") as server, api(server, key) as http:
        second = eventually(lambda: processes(folder) - first)
        assert processes(folder) == second
        run = http.run(http.runs_of(event)[0]["id"])
        assert [attempt["status"] for attempt in run["steps"]["a"]["attempts"]] == ["lost", "running"]
        assert server.stop() == 0
    eventually(lambda: not processes(folder))

"""A replay continues when the command and the server are killed at random moments: each event runs exactly once."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from pathlib import Path

from tests.ports import free_port
from tests.servers import Api, eventually, new_key, program, serving, write_function

SEED = int(os.environ.get("STEPWELL_SEED") or random.SystemRandom().randrange(10**6))
EVENTS = 300
KILLS = 4
RATE = 200


def start(url: str, key: str, state: Path, *options: str) -> subprocess.Popen[str]:
    env = {**os.environ, "STEPWELL_URL": url, "STEPWELL_KEY": key, "XDG_STATE_HOME": str(state)}
    command = [sys.executable, "-m", "stepwell", "replay", "--yes", "--json", *options]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_replay_survives_kills_of_its_command_and_of_its_server(tmp_path: Path) -> None:
    print(f"STEPWELL_SEED={SEED}")
    numbers = random.Random(SEED)
    for id, on in (("target", "go"), ("other", "go"), ("every", "g*")):
        write_function(tmp_path / "functions" / id, id, on, a=program("echo 1"))
    db, state, port = tmp_path / "db", tmp_path / "state", free_port()
    key, server = new_key(db), ("serve", tmp_path / "functions", "--port", port, "--db", db, "--no-fsync")
    arguments = tuple(map(str, server))
    with serving(*arguments) as running:
        http = Api(running.url, key)
        sent = [
            item for _ in range(EVENTS // 50) for item in http.http.post("/e", json=[{"name": "go"}] * 50).json()["ids"]
        ]
        eventually(lambda: not http.get("/v1/runs", status="running", limit=1)["data"], within=60, every=0.1)
        http.close()
        command = start(running.url, key, state, "--function", "target", "--rate", f"{RATE}/s")
        (replay,) = eventually(lambda: [file.stem for file in state.glob("stepwell/replays/*.db")])
        for _ in range(KILLS):
            threading.Event().wait(numbers.uniform(0.1, 0.8))  # the moment of the kill
            command.kill()
            command.communicate()
            if not list(state.glob("stepwell/replays/*.db")):
                break  # the command had ended
            command = start(running.url, key, state, "--resume", replay)
        threading.Event().wait(numbers.uniform(0.1, 0.5))
        running.kill()
    with serving(*arguments) as running:  # the command waits for the server
        command.communicate(timeout=60)
        if list(state.glob("stepwell/replays/*.db")):
            resumed = start(running.url, key, state, "--resume", replay)
            text, problem = resumed.communicate(timeout=60)
            assert resumed.returncode == 0, text + problem
        http = Api(running.url, key)
        eventually(lambda: not http.get("/v1/runs", status="running", limit=1)["data"], within=60, every=0.1)
        runs = http.get("/v1/runs", replay=replay, limit=1000)["data"]
        assert [run["event_id"] for run in reversed(runs)] == sent
        assert {run["function_id"] for run in runs} == {"target"}
        for id, count in (("target", 2 * EVENTS), ("other", EVENTS), ("every", EVENTS)):
            page = http.get("/v1/runs", function=id, limit=1000)["data"]
            assert len(page) == count, id
        http.close()

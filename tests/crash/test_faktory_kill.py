"""Servers and workers of Faktory are killed: no job is lost, and none counts twice."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from stepwell.local.engine.clock import Clock
from stepwell.local.faktory.passwords import password_hash
from tests.local.faktory.conversation import faktory, job_step
from tests.local.faktory.workers import node, node_modules, python, running
from tests.ports import free_port
from tests.servers import DEADLINE_S, Api, Json, Server, api, eventually, new_key, serve, write_function

pytest.importorskip("pyfaktory", reason="pip install pyfaktory")

SEED = int(os.environ.get("STEPWELL_SEED") or random.SystemRandom().randrange(10**6))
PASSWORD = "hush"
NODE_WORKER = """
const fs = require("fs"), faktory = require("faktory-worker"), gate = process.argv[2];
faktory.register("Wait", async (input) => {
  console.log("began");
  while (!fs.existsSync(gate)) await new Promise((resolve) => setTimeout(resolve, 10));
});
faktory.work({ queues: ["node"], concurrency: 5, beatInterval: 5 });
"""
PYTHON_WORKER = """
import os, sys, time
from pyfaktory import Client, Consumer

def wait(gate):
    print("began", flush=True)
    while not os.path.exists(gate):
        time.sleep(0.01)

if __name__ == "__main__":
    def job(step_input, gate=sys.argv[1]):
        wait(gate)
    with Client(role="consumer") as client:
        consumer = Consumer(client, queues=["python"], concurrency=2)
        consumer.register("Wait", job)
        consumer.run()
"""


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return node_modules(tmp_path_factory.mktemp("node"))


class Place:
    """A server that can be killed and started again at the same addresses."""

    def __init__(self, folder: Path) -> None:
        self.functions, self._db, self._port, self.faktory_port = (
            folder / "functions",
            folder / "db",
            free_port(),
            free_port(),
        )
        for name in ("node", "python"):
            write_function(self.functions / name, name, f"go/{name}", a=job_step("Wait", name, timeout="1m"))
        self.url = f"tcp://:{PASSWORD}@127.0.0.1:{self.faktory_port}"
        self._key = new_key(self._db)

    @contextmanager
    def serving(self) -> Iterator[tuple[Server, Api]]:
        options = ("--port", str(self._port), "--faktory", f"127.0.0.1:{self.faktory_port}")
        env = {"STEPWELL_FAKTORY_PASSWORD": PASSWORD}
        with serve(self.functions, self._db, *options, env=env) as server, api(server, self._key) as client:
            yield server, client


def test_jobs_that_a_worker_in_node_has_when_the_server_is_killed_count_when_it_is_back(
    tmp_path: Path, modules: Path
) -> None:
    place, gate, script = Place(tmp_path), tmp_path / "gate", tmp_path / "worker.js"
    script.write_text(NODE_WORKER)
    with running([*node(script, place.url, modules), str(gate)], {}) as worker:
        with place.serving() as (server, client):
            events = [client.send("go/node", id=f"e{n}") for n in range(12)]
            worker.wait_for("began", 5)
            server.kill()
        with place.serving() as (server, client):
            gate.touch()
            runs = [client.ended(event) for event in events]
            assert [run["status"] for run in runs] == ["completed"] * 12
            assert [len(run["steps"]["a"]["attempts"]) for run in runs] == [1] * 12
            worker.wait_for("began", 12)
            assert worker.count("began") == 12


def test_a_worker_in_python_that_is_started_again_does_what_is_queued(tmp_path: Path) -> None:
    """pyfaktory ends when the connection breaks, as when the server is killed; then its supervisor starts it again."""
    place, gate, script = Place(tmp_path), tmp_path / "gate", tmp_path / "worker.py"
    script.write_text(PYTHON_WORKER)
    command = [*python(script, place.url), str(gate)]
    with place.serving() as (server, client):
        events = [client.send("go/python", id=f"e{n}") for n in range(4)]
        server.kill()
    gate.touch()
    with place.serving() as (server, client), running(command, {}) as worker:
        runs = [client.ended(event) for event in events]
        assert [len(run["steps"]["a"]["attempts"]) for run in runs] == [1] * 4
        worker.wait_for("began", 4)
        assert worker.count("began") == 4


# --- clients ---------------------------------------------------------------------------------------------------------


class Pusher(threading.Thread):
    """Pushes jobs, each again and again until it is acknowledged."""

    def __init__(self, port: int, number: int, password: str) -> None:
        super().__init__()
        self._port, self._number, self._password = port, number, password
        self.stopped = threading.Event()
        self.acknowledged: list[str] = []

    def run(self) -> None:
        n = 0
        while not self.stopped.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self._port), 5) as client, client.makefile("rwb") as file:
                    self._hello(file)
                    while not self.stopped.is_set():
                        jid = f"push-{self._number}-{n}"
                        job = orjson.dumps({"jid": jid, "jobtype": "Pushed", "args": [n]})
                        file.write(b"PUSH " + job + b"\r\n")
                        file.flush()
                        if file.readline() != b"+OK\r\n":
                            break
                        self.acknowledged.append(jid)
                        n += 1
            except OSError:
                self.stopped.wait(0.02)

    def _hello(self, file: Any) -> None:
        line = file.readline()
        if not line:
            raise OSError
        greeting = orjson.loads(line[4:])
        proof = password_hash(self._password, greeting["s"], greeting["i"])
        file.write(b"HELLO " + orjson.dumps({"v": 2, "pwdhash": proof}) + b"\r\n")
        file.flush()
        if file.readline() != b"+OK\r\n":
            raise OSError


def test_every_job_that_was_acknowledged_is_one_event_however_often_the_server_is_killed(tmp_path: Path) -> None:
    place, numbers = Place(tmp_path), random.Random(SEED)
    write_function(place.functions / "pushed", "pushed", "faktory/Pushed", a={"runtime": job_step()["runtime"]})
    pushers = [Pusher(place.faktory_port, n, PASSWORD) for n in range(3)]
    for pusher in pushers:
        pusher.start()
    try:
        for _ in range(3):
            enough = [len(pusher.acknowledged) + 5 for pusher in pushers]
            with place.serving() as (server, _):
                eventually(partial(have_pushed, pushers, enough))
                pushers[0].stopped.wait(numbers.random() * 0.2)
                server.kill()
    finally:
        for pusher in pushers:
            pusher.stopped.set()
        for pusher in pushers:
            pusher.join(DEADLINE_S)
    with place.serving() as (_, client):
        acknowledged = {jid for pusher in pushers for jid in pusher.acknowledged}
        events = list(pages(client, "/v1/events"))
        jids = [event["data"]["jid"] for event in events if event["name"] == "faktory/Pushed"]
        assert len(jids) == len(set(jids)), f"seed {SEED}"
        assert acknowledged <= set(jids), f"seed {SEED}"
        runs = [run["event_id"] for run in pages(client, "/v1/runs", function="pushed")]
        assert sorted(runs) == sorted(f"faktory:{jid}" for jid in jids), f"seed {SEED}"


def have_pushed(pushers: list[Pusher], enough: list[int]) -> bool:
    return all(len(pusher.acknowledged) >= count for pusher, count in zip(pushers, enough, strict=True))


def pages(client: Api, path: str, **query: Any) -> Iterator[Json]:
    after: dict[str, str] = {}
    while True:
        page = client.get(path, limit=1000, **query, **after)
        yield from page["data"]
        if page["next"] is None:
            return
        after = {"after": page["next"]}


# --- workers ---------------------------------------------------------------------------------------------------------


def test_the_jobs_of_a_worker_that_is_killed_go_to_another_when_the_reservation_is_over(
    tmp_path: Path, modules: Path
) -> None:
    gate, script = tmp_path / "gate", tmp_path / "worker.js"
    script.write_text(NODE_WORKER)

    async def main() -> None:
        async with faktory(tmp_path, clock=Clock()) as it:
            await it.deploy(a=job_step("Wait", "node", timeout="1m"))
            command = [*node(script, f"tcp://127.0.0.1:{it.port}", modules), str(gate)]
            with running(command, {}) as killed:
                events = [await it.send(id=f"e{n}") for n in range(8)]
                await asyncio.to_thread(killed.wait_for, "began", 5)
                killed.kill()
            with running(command, {}) as worker:
                gate.touch()
                await it.run(events[7])
                await it.advance(61_000)
                runs = [await it.run(event) for event in events]
                attempts = [[a["status"] for a in run["steps"]["a"]["attempts"]] for run in runs]
                assert sorted(attempts) == [["completed"]] * 3 + [["lost", "completed"]] * 5
                worker.wait_for("began", 8)
                assert worker.count("began") == 8

    asyncio.run(main())

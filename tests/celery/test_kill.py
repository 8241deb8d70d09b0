"""Servers and workers that are killed while tasks run: every task ends its step, and none is sent twice."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.celery.brokers import Redis, Worker, redis_server, worker
from tests.servers import Api, api, dev, eventually, write_function


def write_waiting(folder: Path, broker: str, backend: str, *, queue: str = "celery", **step: Any) -> Path:
    runtime = {
        "type": "celery",
        "task": "shop.wait_for",
        "queue": queue,
        "broker": broker,
        "backend": backend,
        "args": "[data.path, data.started]",
    }
    return write_function(folder, on="go", task={"runtime": runtime, "retries": {"attempts": 0}, **step})


def sent_tasks(worker: Worker) -> list[str]:
    return re.findall(r"Task shop.wait_for\[(.*?)\] received", worker.log.read_text())


def wait_until_sent(client: Api, event_id: str) -> None:
    """Waits until the log says that the broker has the task: then this is in the database, too."""
    (run_id,) = eventually(lambda: [run["id"] for run in client.runs_of(event_id)])

    def is_sent() -> bool:
        run = client.run(run_id)
        assert run["status"] == "running", run
        return "sent shop.wait_for" in str(run)

    eventually(is_sent)


def test_tasks_go_on_while_the_server_is_dead_and_their_results_are_found_afterwards(
    redis: Redis, tmp_path: Path
) -> None:
    broker, backend = redis.url(6), redis.url(7)
    functions = write_waiting(tmp_path / "f", broker, backend)
    with worker({"BROKER": broker, "BACKEND": backend}, log=tmp_path / "log") as shop:
        data = {"path": str(tmp_path / "go"), "started": str(tmp_path / "started")}
        with dev(functions, tmp_path / "db") as server, api(server) as client:
            events = [client.send(data=data) for _ in range(8)]  # four run, four wait in the broker
            for event in events:
                wait_until_sent(client, event)
            eventually(lambda: len(sent_tasks(shop)) == 8)
            server.kill()
        (tmp_path / "go").touch()
        eventually(lambda: shop.log.read_text().count(" succeeded in ") == 8)
        with dev(functions, tmp_path / "db") as server, api(server) as client:
            ended = [client.ended(event, within=60) for event in events]
        assert {run["status"] for run in ended} == {"completed"}
        assert [len(run["steps"]["task"]["attempts"]) for run in ended] == [1] * 8
        assert len(sent_tasks(shop)) == len(set(sent_tasks(shop))) == 8


def test_results_by_rpc_wait_in_their_queue_while_the_server_is_dead(rabbit: str, tmp_path: Path) -> None:
    functions = write_waiting(tmp_path / "f", rabbit, "rpc://", queue="rpc")
    with worker({"BROKER": rabbit, "BACKEND": "rpc://", "QUEUE": "rpc"}, log=tmp_path / "log") as shop:
        data = {"path": str(tmp_path / "go"), "started": str(tmp_path / "started")}
        with dev(functions, tmp_path / "db") as server, api(server) as client:
            event = client.send(data=data)
            wait_until_sent(client, event)
            eventually(lambda: sent_tasks(shop))
            server.kill()
        (tmp_path / "go").touch()
        eventually(lambda: " succeeded in " in shop.log.read_text())
        with dev(functions, tmp_path / "db") as server, api(server) as client:
            ended = client.ended(event, within=60)
        assert (ended["status"], ended["output"]) == ("completed", {"task": "waited"})
        assert len(ended["steps"]["task"]["attempts"]) == 1


def test_a_task_whose_worker_was_killed_is_ended_by_the_next_worker(rabbit: str, tmp_path: Path) -> None:
    env = {"BROKER": rabbit, "BACKEND": "rpc://", "QUEUE": "killed"}
    functions = write_function(
        tmp_path / "f",
        on="go",
        task={
            "runtime": {
                "type": "celery",
                "task": "shop.wait_for",
                "queue": "killed",
                "broker": rabbit,
                "args": "[data.path, data.started]",
            }
        },
    )
    data = {"path": str(tmp_path / "go"), "started": str(tmp_path / "started")}
    with dev(functions, tmp_path / "db") as server, api(server) as client:
        with worker(env, log=tmp_path / "log") as first:
            event = client.send(data=data)
            eventually((tmp_path / "started").exists)
            first.kill()
        (tmp_path / "go").touch()
        with worker(env, log=tmp_path / "log2"):
            ended = client.ended(event, within=60)
    assert [attempt["error"] for attempt in ended["steps"]["task"]["attempts"]] == [None]


def test_a_task_that_its_killed_worker_lost_is_sent_again_after_the_timeout(tmp_path: Path) -> None:
    with redis_server(tmp_path) as redis:
        env = {"BROKER": redis.url(), "BACKEND": redis.url(1)}
        functions = write_waiting(
            tmp_path / "f",
            redis.url(),
            redis.url(1),
            timeout="2s",
            retries={"attempts": 20, "backoff": {"initial": "10ms", "max": "10ms"}},
        )
        data = {"path": str(tmp_path / "go"), "started": str(tmp_path / "started")}
        with dev(functions, tmp_path / "db") as server, api(server) as client:
            with worker(env, log=tmp_path / "log") as first:
                event = client.send(data=data)
                eventually((tmp_path / "started").exists)
                first.kill()
            (tmp_path / "go").touch()
            with worker(env, log=tmp_path / "log2"):
                ended = client.ended(event, within=60)
    kinds = [(attempt["error"] or {}).get("kind") for attempt in ended["steps"]["task"]["attempts"]]
    assert (ended["status"], kinds[0], kinds[-1]) == ("completed", "timeout", None)
    assert set(kinds[:-1]) == {"timeout"}

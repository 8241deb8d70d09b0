"""The whole life of an environment, on an emulator: bootstrap, deploy, push, 200 events, cancel, rerun, destroy.

Every command is the one that a user types. What is not as it should be ends it with an error.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import venv
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).parent
ROOT = HERE.parent
BUILD = ROOT / "build" / "rehearsal"
ENV = "rehearsal"
EVENTS = 200
Json = dict[str, Any]


def main() -> None:
    python = ministack_python()
    with emulator(python) as url:
        os.environ |= {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        version = subprocess.check_output(
            [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], text=True
        )
        settings = {"env": ENV, "architecture": machine(), "python": version.strip(), "keep_data": "true"}
        context = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        step("bootstrap", lambda: cdk("bootstrap", "aws://000000000000/us-east-1", *context))
        step("deploy", lambda: cdk("deploy", "--require-approval", "never", *context))
        step("push", push)
        client = Client(url)
        step(f"{EVENTS} events", lambda: send_many(client))
        step("waits", lambda: pack(client))
        step("cancel and rerun", lambda: cancel_and_rerun(client))
        step("redeploy while a run waits", lambda: redeploy(client, context))
        step("destroy", lambda: destroy(context))
    print("the rehearsal is over: everything was as it should be")


def step(name: str, do: Callable[[], object]) -> None:
    began = time.monotonic()
    print(f"{name} ...", flush=True)
    do()
    print(f"{name}: done in {time.monotonic() - began:.1f} s", flush=True)


# --- what is rehearsed -----------------------------------------------------------------------------------------------


def push() -> None:
    """Programs run on this machine's processor; elsewhere they would be for arm64, which costs less."""
    functions = BUILD / "functions"
    shutil.rmtree(functions, ignore_errors=True)
    shutil.copytree(HERE / "functions", functions)
    file = functions / "shell" / "stepwell.json"
    definition = json.loads(file.read_text())
    definition["steps"]["count"]["runtime"] = {"type": "lambda", "architecture": machine()}
    file.write_text(json.dumps(definition))
    stepwell("push", str(functions), "--env", ENV)
    assert "nothing has changed" in stepwell("push", str(functions), "--env", ENV)


def send_many(client: Client) -> None:
    orders = [
        {"name": "order/placed", "data": {"order": i, "total": 1, "declined": i % 10 == 0}} for i in range(EVENTS // 2)
    ]
    notes = [{"name": "note/taken", "data": {"n": i}} for i in range(EVENTS // 2)]
    for start in range(0, EVENTS // 2, 10):
        client.send(orders[start : start + 10])
        client.send(notes[start : start + 10])
    client.until(lambda runs: len(runs) == EVENTS, "every event starts a run")
    client.until(lambda runs: statuses(runs, "shell") == {"completed": EVENTS // 2}, "programs complete")
    client.until(lambda runs: waiting(runs) == EVENTS // 2, "every order waits to be packed")


def pack(client: Client) -> None:
    for start in range(0, EVENTS // 2, 10):
        client.send([{"name": "order/packed", "data": {"order": i}} for i in range(start, start + 10)])
    runs = client.until(lambda runs: statuses(runs) == {"completed": EVENTS}, "every run completes")
    for run in runs:
        if run["function_id"] == "order":
            assert run["output"]["ship"]["paid"] == 100, run


def cancel_and_rerun(client: Client) -> None:
    run = client.start_order(1000)
    assert client.call("DELETE", f"/v1/runs/{run['id']}")["status"] == "cancelled"
    again = client.call("POST", f"/v1/runs/{run['id']}/rerun")
    assert again["rerun_of"] == run["id"], again
    client.until(lambda runs: waiting(runs) == 1, "the rerun waits")
    client.send([{"name": "order/packed", "data": {"order": 1000}}])
    client.until(lambda runs: {r["id"]: r for r in runs}[again["id"]]["status"] == "completed", "the rerun completes")


def redeploy(client: Client, context: list[str]) -> None:
    run = client.start_order(2000)
    cdk("deploy", "--require-approval", "never", *context, "-c", "batch_size=5")
    client.send([{"name": "order/packed", "data": {"order": 2000}}])
    client.until(lambda runs: {r["id"]: r for r in runs}[run["id"]]["status"] == "completed", "the run goes on")


def destroy(context: list[str]) -> None:
    import boto3

    kept = {"AWS::DynamoDB::GlobalTable", "AWS::DynamoDB::Table", "AWS::S3::Bucket"}
    cdk("destroy", "--force", *context)
    left = [f["FunctionName"] for f in boto3.client("lambda").list_functions()["Functions"]]
    engine = [name for name in left if not name.startswith(f"stepwell-{ENV}-")]
    assert not engine, f"left behind, besides {kept}: {engine}"
    queues = boto3.client("sqs").list_queues().get("QueueUrls", [])
    assert not queues, f"left behind: {queues}"


def statuses(runs: list[Json], function: str | None = None) -> dict[str, int]:
    return dict(Counter(run["status"] for run in runs if function in (None, run["function_id"])))


def waiting(runs: list[Json]) -> int:
    return sum(
        run["function_id"] == "order" and run["status"] == "running" and run["steps"]["ship"]["status"] == "waiting"
        for run in runs
    )


class Client:
    """The API of the deployed environment, at the address that a user is told."""

    def __init__(self, emulator_url: str) -> None:
        from stepwell.aws.resources import Resources

        address = httpx.URL(Resources.of_environment(ENV).api_url)
        key = json.loads(stepwell("keys", "create", "--scope", "manage", "--env", ENV, "--json"))["key"]
        # The emulator tells APIs apart by the host that is asked for.
        port = httpx.URL(emulator_url).port
        host = f"{address.host.split('.')[0]}.execute-api.localhost:{port}"
        headers = {"authorization": f"Bearer {key}", "host": host}
        self._http = httpx.Client(base_url=emulator_url, headers=headers, timeout=60)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        response = self._http.request(method, path, json=body)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text[:500]}"
        return response.json()

    def send(self, events: list[Json]) -> list[str]:
        ids: list[str] = self.call("POST", "/e", events)["ids"]
        assert len(ids) == len(events)
        return ids

    def runs(self) -> list[Json]:
        runs: list[Json] = []
        after = ""
        while True:
            page = self.call("GET", f"/v1/runs?limit=200{after}")
            runs += page["data"]
            if page["next"] is None:
                return runs
            after = f"&after={page['next']}"

    def until(self, holds: Callable[[list[Json]], bool], what: str, patience_s: float = 90) -> list[Json]:
        deadline = time.monotonic() + patience_s
        while not holds(runs := self.runs()):
            if time.monotonic() > deadline:
                failed = next((run["error"] for run in runs if run["error"]), None)
                sys.exit(f"never: {what}; runs: {statuses(runs)}, waiting: {waiting(runs)}, first error: {failed}")
            time.sleep(1)
        print(f"  {what}", flush=True)
        return runs

    def start_order(self, order: int) -> Json:
        (event,) = self.send([{"name": "order/placed", "data": {"order": order, "total": 1}}])
        self.until(
            lambda runs: any(r["event_id"] == event for r in runs) and waiting(runs) >= 1, f"order {order} waits"
        )
        (run,) = self.call("GET", f"/v1/events/{event}/runs")["data"]
        return dict(run)


# --- commands --------------------------------------------------------------------------------------------------------


def cdk(*words: str) -> None:
    run(["npx", "--no-install", "cdk", *words])


def stepwell(*words: str) -> str:
    return run([sys.executable, "-m", "stepwell", *words])


def run(command: list[str]) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-5000:]}\n{done.stderr[-5000:]}")
    return done.stdout


def machine() -> str:
    import platform

    return {"aarch64": "arm64"}.get(platform.machine(), platform.machine())


def ministack_python() -> str:
    """The Python of the emulator's virtual environment, made if it is not there."""
    python = BUILD / "bin" / "python"
    if not (BUILD / "bin" / "ministack").exists():
        venv.create(BUILD, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "ministack", "boto3"], check=True)
    return str(python)


@contextmanager
def emulator(python: str) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables = {**os.environ, "GATEWAY_PORT": str(port), "LAMBDA_EXECUTOR": "local", "PERSIST_STATE": "0"}
    log = (BUILD / "emulator.log").open("wb")
    process = subprocess.Popen([python, str(HERE / "emulator.py")], env=variables, stdout=log, stderr=log)
    url = f"http://localhost:{port}"
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                httpx.get(url, timeout=2)
                break
            except httpx.TransportError:
                if time.monotonic() > deadline or process.poll() is not None:
                    sys.exit(f"ministack does not start, see {log.name}")
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(20)
        log.close()
        shutil.rmtree(ROOT / "cdk.out", ignore_errors=True)


if __name__ == "__main__":
    main()

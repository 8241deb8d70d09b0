"""The project and the server that the examples of the reference pages use.

The function is called `welcome`, the type `order/placed`, the webhook `github` and the source `orders`, as in the
examples.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import socket
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from stepwell.local.faktory.passwords import password_hash
from tests.brokers import redis_server
from tests.pages import blocks
from tests.servers import Api, Json, api, eventually, new_key, program, serve, write_function

CLI_PAGE = Path(__file__).parents[1] / "docs" / "reference" / "cli.md"
EVENT = {"name": "user/signed.up", "data": {"plan": "pro"}, "user": {"email": "ada@example.com"}}
WORKER, PASSWORD = "4qpc2443vpvai", "hush"
VERSION = "2026-11-23.1"
ORDER = {"type": "object", "required": ["amount"]}
STEP = """case "$1" in *'"plan":"gone"'*) exit 1;; esac; echo '{"total": 7}'"""
APPROVAL = {"runtime": {"type": "approval", "message": "Pay back?"}, "timeout": "2d"}


def cli_examples() -> list[str]:
    """The examples of the commands in reference/cli.md."""
    return [line for block in blocks(CLI_PAGE.read_text("utf-8")) for line in block.text.splitlines()]


def needs_aws(example: str) -> bool:
    return re.search(r"--env\b", example) is not None


def write_project(folder: Path) -> Path:
    """Writes the files that the examples name, and returns the folder."""
    functions = folder / "functions"
    write_welcome(functions / "welcome")
    write_function(functions / "refund", "refund", "refund/requested", confirm=APPROVAL)
    _write(functions / "schemas" / "order" / f"placed.{VERSION}.schema.json", ORDER)
    _write(functions / "webhooks" / "github.json", {"event": "github/push", "verify": None})
    source = {"type": "redis", "url": "redis://localhost", "stream": "orders", "event": "order/made"}
    _write(functions / "sources" / "orders.json", source)
    for version, fields in (("1", {}), ("2", {"note": {"type": "string"}})):
        _write(folder / "schemas" / "order" / f"placed.{version}.schema.json", {**ORDER, "properties": fields})
    _write(folder / "push.json", {"ref": "refs/heads/main"})
    (folder / "stripe-key.txt").write_text("sk_test_1")
    (folder / "history.ndjson.gz").write_bytes(gzip.compress(json.dumps({"id": "history-1", **EVENT}).encode()))
    (folder / "welcome.zip").write_bytes(zipped(functions / "welcome"))
    return folder


def write_welcome(folder: Path, version: int = 1) -> Path:
    """Writes the function `welcome`. Another number makes another version."""
    second = program("echo '{}'", after=[{"step": "step-1"}], env={"NUMBER": str(version)})
    written = write_function(folder, "welcome", "user/signed.up", step_1=program(STEP), step_2=second)
    file = folder / "stepwell.json"
    _write(file, {**json.loads(file.read_text()), "concurrency": {"limit": 50}})
    return written


def _password(folder: Path) -> Path:
    (folder / "password").write_text(PASSWORD)
    return folder / "password"


def _write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def zipped(folder: Path) -> bytes:
    """A zip archive of a folder."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return made.getvalue()


@dataclass
class Scene:
    """A running server with three versions of `welcome`, events, a user and runs of each status."""

    folder: Path
    db: Path
    url: str
    key: str
    api: Api
    numbers: Iterator[int]
    brokers: ExitStack
    faktory_port: int
    redis: list[int] = field(default_factory=list)  # the port of the server that the source reads, when it runs

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """The answer to a request, which must succeed."""
        answer = self.api.http.request(method, path, json=body, params=query)
        assert answer.is_success, answer.text
        return answer.json()

    def push(self, version: int) -> None:
        """Pushes a version of `welcome`; the newest version again makes it live."""
        archive = zipped(write_welcome(self.folder / "pushed", version))
        answer = self.api.http.post("/v1/functions", content=archive, headers={"content-type": "application/zip"})
        assert answer.is_success, answer.text

    def settle(self) -> None:
        """Makes version 3 of `welcome` live, without a canary, and not paused."""
        if self.call("GET", "/v1/functions/welcome/routing")["state"] == "paused":
            self.call("POST", "/v1/functions/welcome/resume")
        self.push(3)

    def canary(self) -> None:
        self.settle()
        self.call("PUT", "/v1/functions/welcome/routing", {"canary": {"version": 2, "weight": 0.1}})

    def pause(self) -> None:
        self.settle()
        self.call("POST", "/v1/functions/welcome/pause", {})

    def ended_run(self, **event: Any) -> str:
        """The id of a run of `welcome` that has ended."""
        return str(self.api.ended(self.api.send(**{**EVENT, **event}))["id"])

    def waiting_run(self) -> Json:
        """A run that waits for a decision."""
        event_id = self.api.send("refund/requested", id=f"refund-{next(self.numbers)}")
        (run,) = eventually(lambda: self.api.runs_of(event_id))
        return eventually(lambda: (found := self.api.run(run["id"]))["steps"]["confirm"].get("approval") and found)

    def user(self) -> None:
        """Makes the user, with a trait and two ids."""
        user = {"external_id": "ada", "email": "ada@example.com", "plan": "pro"}
        self.api.send("stepwell/identify", user=user)

    def type(self) -> None:
        """Registers the type."""
        self.call("POST", "/v1/types", {"name": "order/placed", "version": VERSION, "schema": ORDER})

    def worker(self) -> None:
        """Connects a Faktory worker."""
        connection = self.brokers.enter_context(socket.create_connection(("127.0.0.1", self.faktory_port)))
        with connection.makefile("rwb") as file:
            greeting = json.loads(file.readline()[4:])
            proof = password_hash(PASSWORD, greeting["s"], greeting["i"])
            hello = {"v": 2, "pwdhash": proof, "wid": WORKER, "hostname": "web-1", "pid": 7, "labels": []}
            file.write(f"HELLO {json.dumps(hello)}\r\n".encode())
            file.flush()
            assert file.readline() == b"+OK\r\n"

    def webhook(self) -> None:
        self.call("PUT", "/v1/webhooks/github", {"event": "github/push", "verify": None})

    def source(self) -> dict[str, str]:
        """Makes the source, which has a record in quarantine."""
        import redis

        if not self.redis:
            self.redis.append(self.brokers.enter_context(redis_server(self.folder / "redis")))
        url = f"redis://127.0.0.1:{self.redis[0]}"
        self.call("PUT", "/v1/sources/orders", {"type": "redis", "url": url, "stream": "orders", "event": "order/made"})
        self.call("POST", "/v1/sources/orders/resume")
        with redis.Redis(port=self.redis[0]) as client:
            entry = client.xadd("orders", {b"\xff": "not UTF-8"})
        record = f"redis/orders/{entry.decode()}"
        return {"RECORD_ID": str(eventually(lambda: self._quarantined(record)))}

    def _quarantined(self, record: str) -> int | None:
        """The id of a record in the quarantine; None if it is not there."""
        records = self.call("GET", "/v1/sources/orders/quarantine")["data"]
        return next((item["id"] for item in records if item["record"] == record), None)

    def empty_quarantine(self) -> None:
        ids = [item["id"] for item in self.source() and self.call("GET", "/v1/sources/orders/quarantine")["data"]]
        self.call("POST", "/v1/sources/orders/quarantine/discard", {"ids": ids})


# What an example needs, by the beginning of its text; the longest beginning counts. The answers are values for the
# example, by name.
Prepared = Mapping[str, Callable[[Scene], dict[str, str] | None]]


def prepare(scene: Scene, example: str, prepared: Prepared) -> dict[str, str]:
    """Makes what an example needs, after whatever other examples did. Returns values for the example, by name."""
    scene.settle()
    found = max((start for start in prepared if example.startswith(start)), key=len, default=None)
    return (prepared[found](scene) if found else None) or {}


@contextmanager
def documented(folder: Path) -> Iterator[Scene]:
    """The project and the server, in a folder."""
    project, db = write_project(folder / "project"), folder / "db"
    key = new_key(db)
    faktory = ("--faktory", "127.0.0.1:0", "--faktory-password-file", _password(folder))
    with ExitStack() as brokers, serve(project / "functions", db, *faktory) as server, api(server, key) as client:
        port = int(server.line(lambda line: "faktory" in line)["faktory"].rpartition(":")[2])
        scene = Scene(project, db, server.url, key, client, count(1), brokers, port)
        scene.push(2)
        scene.push(3)
        scene.user()
        scene.ended_run(id="signup-1")
        scene.ended_run(data={"plan": "gone"})
        scene.call("DELETE", f"/v1/runs/{scene.waiting_run()['id']}")
        scene.waiting_run()
        scene.api.send("order/placed", data={"amount": 3})
        yield scene

"""A local Stepwell for tests: a server in a thread of this process, with a clock that the test moves."""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Hashable, Mapping
from contextlib import closing
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode
from uuid import uuid4

import httpx
import orjson
import uvloop

from stepwell.api.access import AnyKey
from stepwell.api.ingest.event_ids import new_event_id
from stepwell.api.views.runs import event_view, run_view
from stepwell.core.duration import parse_duration
from stepwell.core.events.request import BadRequest, parse_events
from stepwell.local.database.schema import connect, migrate
from stepwell.local.engine.clock import Clock
from stepwell.local.http.serving import app_of
from stepwell.local.server import LocalServer, ServerSettings, open_server
from stepwell.local.system.files import make_file, make_folder
from stepwell.project.archive import write_archive
from stepwell.project.cache_folder import modules_cache
from stepwell.project.load import LoadedFunction, load
from stepwell.testing.decisions import Decisions
from stepwell.testing.platform import PATIENCE_S, START, Answer, Json, Refused
from stepwell.testing.projects import project_at

T = TypeVar("T")


class StillClock(Clock):
    """A clock that stands still until `advance`."""

    def __init__(self) -> None:
        super().__init__()
        self._now = round(START.timestamp() * 1000)

    def now(self) -> int:
        return self._now

    def advance(self, ms: int) -> None:
        self._now += ms


@cache
def _empty_database() -> bytes:
    """A database file with all tables and no rows. To copy it takes a tenth of the time of making the tables."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "stepwell.db")
        with closing(connect(path)) as connection:
            migrate(connection)
        return path.read_bytes()


def put_empty_database(path: Path) -> None:
    """Writes a database with all tables and no rows to this file, unless it exists."""
    if not path.exists():
        make_folder(path.parent)
        make_file(path)
        path.write_bytes(_empty_database())


class LocalStepwell(Decisions):
    """Implements `platform.Stepwell`. The database is created in `folder`."""

    name = "local"
    server: LocalServer

    def __init__(self, folder: Path, *, parallelism: int = 4, no_containers: bool = True) -> None:
        self.parallelism = parallelism
        self._secrets: dict[str, str] = {}
        database = folder / "stepwell.db"
        put_empty_database(database)
        self._settings = ServerSettings(
            database,
            parallelism=parallelism,
            no_containers=no_containers,
            secret=self._secrets.get,
            compiled=modules_cache(),
        )
        self._clock = StillClock()
        self._open()

    def _open(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._stop: asyncio.Event
        started = threading.Event()
        self._thread = threading.Thread(target=self._main, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(PATIENCE_S)

    def _main(self, started: threading.Event) -> None:
        async def main() -> None:
            self._stop = asyncio.Event()
            async with open_server(self._settings, self._clock) as self.server:
                started.set()
                await self._stop.wait()

        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(main())

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(4 * PATIENCE_S)

    def deploy(self, path: Path | str) -> Any:
        project = project_at(path)
        self._call(self.server.register_types(project.types))
        for webhook in project.webhooks:
            self._call(self.server.webhooks.put(webhook.rule))
        return project.answer({function.definition.id: self._deploy(function) for function in project.functions})

    def _deploy(self, function: LoadedFunction) -> int:
        deployed = self._call(self.server.deploy(function))
        if deployed.registered is None:
            raise Refused(400, [{"pointer": "", "message": reason} for reason in deployed.missing])
        return deployed.registered.version

    def push(self, path: Path | str, **release: Any) -> Json:
        """Pushes the function in a folder as `stepwell push` does, and returns the server's answer.

        `release`: query parameters of `POST /v1/functions`.
        """
        file = BytesIO()
        write_archive(load(Path(path)), file)
        query = urlencode({name: str(value).lower() if value is True else value for name, value in release.items()})
        headers = {"content-type": "application/zip"}
        answer: Json = self.http("POST", f"/v1/functions?{query}", file.getvalue(), headers).json()
        return answer

    def send(self, name: str = "go", data: Json | None = None, user: Json | None = None, **envelope: Any) -> str:
        event = {"name": name, "data": data or {}, "user": user or {}, **envelope}
        return self.send_raw(orjson.dumps(event))[0]

    def send_raw(self, body: bytes) -> list[str]:
        async def send() -> list[str]:
            events = parse_events(body, self._clock.now(), new_event_id)
            await self.server.platform.send(events)
            return [event.id for event in events]

        try:
            return self._call(send())
        except BadRequest as bad:
            errors = [{"index": e.index, "pointer": e.pointer, "message": e.message} for e in bad.errors]
            raise Refused(bad.status, errors) from None

    def http(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(app_of(self.server, AnyKey()))
            async with httpx.AsyncClient(transport=transport, base_url="http://stepwell") as client:
                return await client.request(method, path, content=body, headers=headers)

        response = self._call(call())
        return Answer(response.status_code, response.headers, response.content)

    def api(self, method: str, path: str, body: Any = None) -> Any:
        content = b"" if body is None else orjson.dumps(body)
        return self.http(method, path, content, {"content-type": "application/json"}).json()

    def event(self, event_id: str) -> Json:
        self._settle_to_show()
        detail = self.server.queries.read_event(event_id)
        assert detail is not None, f"no event {event_id}"
        return dict(event_view(detail))

    def events(self, name: str | None = None) -> list[Json]:
        self._settle_to_show()
        page = self.server.queries.read_events(name=name, limit=1000)
        return [dict(event_view(detail)) for detail in reversed(page.items)]

    def runs(self, event_id: str | None = None) -> list[Json]:
        self._settle_to_show()
        page = self.server.queries.read_runs(event=event_id, limit=1000)
        return [self.peek(detail.run.id) for detail in reversed(page.items)]

    def run_of(self, event_id: str) -> str:
        """The id of the event's only run, without settling first."""
        (detail,) = self.server.queries.read_runs(event=event_id).items
        return detail.run.id

    def run(self, run_id: str) -> Json:
        self._settle_to_show()
        return self.peek(run_id)

    def peek(self, run_id: str) -> Json:
        detail = self.server.queries.read_run(run_id)
        assert detail is not None, f"no run {run_id}"
        return dict(run_view(detail, lambda: self.server.platform.links))

    def wait(self, run_id: str, until: Callable[[Json], bool]) -> Json:
        deadline = time.monotonic() + PATIENCE_S
        while not until(run := self.peek(run_id)):
            assert time.monotonic() < deadline, f"the condition was never met: {json.dumps(run, indent=1)}"
            threading.Event().wait(0.003)
        return run

    def cancel(self, run_id: str) -> None:
        async def cancel() -> None:
            await self.server.platform.runs.cancel(run_id)

        self._call(cancel())

    def rerun(self, run_id: str) -> str | None:
        return self._call(self.server.platform.runs.rerun(run_id, uuid4().hex))

    def _settle(self, within_s: float) -> bool:
        try:
            self._call(asyncio.wait_for(self.server.platform.until_idle(), within_s))
        except TimeoutError:
            return False
        return True

    def _running(self) -> frozenset[Hashable]:
        return frozenset(self.server.platform.executor.running)

    def travel(self, duration: str) -> None:
        self._call(self.server.platform.travel(parse_duration(duration)))

    def secret(self, name: str, value: str) -> None:
        self._secrets[name] = value

    def restart(self, downtime: str = "0s") -> None:
        self.close()
        self._clock.advance(parse_duration(downtime))
        self._open()

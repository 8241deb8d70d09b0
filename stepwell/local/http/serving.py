"""Serves the HTTP API of a local server."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import IO, Any, TypeVar
from uuid import uuid4

from starlette.types import ASGIApp

from stepwell.api.access import Keys, LocalOnly
from stepwell.api.asgi import App, EventSink
from stepwell.api.http.problem import Problem
from stepwell.api.ingest.ingest import refusal
from stepwell.api.v1.app import create_app
from stepwell.api.v1.routing import Pushed
from stepwell.api.v1.users import Erased
from stepwell.core.events.events import Event
from stepwell.core.events.request import BadRequest
from stepwell.core.events.users import Person
from stepwell.core.routing.guard import RunSample
from stepwell.core.routing.versions import Release, Routing, RoutingChange
from stepwell.core.run.approvals import Link
from stepwell.core.run.messages import Outcome
from stepwell.core.run.resume import Restart
from stepwell.local.approvals import LocalApprovals
from stepwell.local.engine.batch_loop import Unavailable
from stepwell.local.engine.erasure import erase
from stepwell.local.engine.settings import DEFAULT_URL
from stepwell.local.http.ingest_connection import IngestConnection
from stepwell.local.http.tls import Certificate
from stepwell.local.http.web_server import WebServer
from stepwell.local.limit_control import LimitControl
from stepwell.local.reading.readers import ReaderProcess, Readers
from stepwell.local.server import LocalServer
from stepwell.local.sources.control import SourceControl
from stepwell.local.type_control import TypeControl
from stepwell.local.users import LocalUsers
from stepwell.local.webhooks import WebhookControl
from stepwell.platform import Replayed
from stepwell.project.archive import BadArchive
from stepwell.project.load import LoadError

log = logging.getLogger("stepwell.http")

_ANSWER_S = 30.0  # how long a request waits for its batch
_PUSH_S = 300.0  # how long a push waits
_SWITCH_S = 0.0005  # until a thread releases the interpreter's lock: the loop needs it after each call of SQLite
_MIN_DRAIN_S, _MAX_DRAIN_S = 1.0, 5.0  # limits of the time that requests get to end when the server stops

T = TypeVar("T")
Around = Callable[[ASGIApp], ASGIApp]


class _Control:
    """Implements `api.v1.runs.Control` and `api.v1.routing.Lifecycle` for endpoints that run in threads."""

    def __init__(self, server: LocalServer) -> None:
        self._server, self._loop = server, asyncio.get_running_loop()
        self._platform, self._queries = server.platform, server.queries

    def cancel(self, run_id: str) -> None:
        async def cancel() -> None:
            await self._platform.runs.cancel(run_id)

        self.call(cancel())

    def rerun(self, run_id: str, restart: Restart | None) -> str | None:
        return self.call(self._platform.runs.rerun(run_id, uuid4().hex, restart))

    def replay(
        self, function_id: str, version: int, events: Sequence[str | Event], replay: str
    ) -> list[Replayed] | None:
        return self.call(self._platform.runs.replay(function_id, version, events, replay))

    def decide(self, link: Link, outcome: Outcome) -> bool:
        return self.call(self._platform.runs.decide(link, outcome))

    def erase(self, person: Person) -> Erased:
        return self.call(erase(self._platform, person))

    def read_samples(self, function_id: str, limit: int) -> Sequence[RunSample]:
        return self._queries.read_samples(function_id, limit)

    def change_routing(self, function_id: str, change: RoutingChange) -> Routing:
        return self.call(self._platform.registration.change_routing(function_id, change))

    def push(self, archive: IO[bytes], release: Release) -> Pushed:
        try:
            deployed = self.call(self._server.push(archive, release), _PUSH_S)
        except BadArchive as bad:
            raise Problem(400, str(bad)) from None
        except LoadError as wrong:
            errors = [
                {"file": problem.file.name, "line": problem.line, "column": problem.column, "message": problem.message}
                for problem in wrong.problems
            ]
            first = wrong.problems[0]
            raise Problem(400, f"{first.file.name}:{first.line}: {first.message}", errors=errors) from None
        if deployed.registered is None:
            raise Problem(409, f"this machine cannot run the function: {'; '.join(deployed.missing)}")
        registered = deployed.registered
        return Pushed(registered.function_id, registered.version, registered.is_new)

    def cancel_runs(self, function_id: str) -> None:
        self.call(self._platform.runs.cancel_all(function_id))

    def call(self, work: Coroutine[Any, Any, T], seconds: float = _ANSWER_S) -> T:
        """Runs a coroutine on the event loop, and returns its result."""
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)
        except Unavailable as reason:
            raise Problem(503, str(reason)) from None


def app_of(
    server: LocalServer,
    keys: Keys,
    local_only: LocalOnly | None = None,
    reader: ReaderProcess | None = None,
    around: Around | None = None,
) -> App:
    """The API of a started server, on the running event loop. With `reader`, some reads go to the reader process.
    `around` wraps the application that answers all requests except those that become events."""
    platform = server.platform

    control = _Control(server)
    types = TypeControl(platform, server.queries, control.call)
    limits = LimitControl(platform, control.call)
    webhooks = WebhookControl(server.webhooks, server.queries, control.call)
    sources = SourceControl(server.sources, server.queries, control.call)

    async def accept(events: Sequence[Event]) -> None:
        try:
            await platform.send(events)
        except Unavailable as reason:
            raise Problem(503, str(reason)) from None
        except BadRequest as bad:
            raise refusal(bad) from None

    users = LocalUsers(server.settings.database, control.erase)
    approvals = LocalApprovals(platform, server.queries, control.decide)
    rest: ASGIApp = create_app(
        users, control, types, approvals, webhooks, keys, lambda: server.broken, sources, server.workers, limits
    )
    if reader is not None:
        rest = Readers(rest, reader, keys)
    if around is not None:
        rest = around(rest)
    sink = EventSink(accept, platform.intake.judge, platform.clock.now, platform.intake.sender)
    return App(rest, server.webhooks, keys, sink, local_only)


async def serve(
    server: LocalServer,
    listener: socket.socket,
    keys: Keys,
    *,
    local_only: LocalOnly | None,
    certificate: Certificate | None = None,
    around: Around | None = None,
    ready: Callable[[], Coroutine[None, None, None]],
) -> None:
    """Answers requests until this task is cancelled, then lets current requests end; a second cancel ends them at once.

    Steps may end in the meantime. `ready` is called once the first request can be answered."""
    _calm_the_collector()
    sys.setswitchinterval(_SWITCH_S)
    drain_s = round(min(max(server.settings.grace_s, _MIN_DRAIN_S), _MAX_DRAIN_S))
    reader = ReaderProcess(server.settings.database, server.settings.public_url or DEFAULT_URL)
    app = app_of(server, keys, local_only, reader, around)
    http = WebServer(app, drain_s, IngestConnection, certificate)
    serving = asyncio.create_task(http.serve(sockets=[listener]))
    while not http.started and not serving.done():
        await asyncio.sleep(0.002)
    announced = asyncio.create_task(ready())
    announced.add_done_callback(_report)
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.platform.drain()
        http.should_exit = True
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            http.force_exit = True
            raise
    finally:
        announced.cancel()
        await reader.close()


def _calm_the_collector() -> None:
    """Makes garbage collections rare and short, since a busy server makes many objects but few cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)  # a collection of 50,000 young objects would block the loop for 30 ms


def _report(task: asyncio.Task[None]) -> None:
    """Logs the error of a background task, which would otherwise be lost."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a background task failed: %r", error, exc_info=error)

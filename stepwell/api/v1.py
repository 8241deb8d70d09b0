"""`/v1`: what exists and what happened, cancel and rerun. One table of operations makes the routes and the OpenAPI
document. Endpoints are plain functions that run in threads, so a slow read never holds up the engine."""

from __future__ import annotations

import asyncio
import contextvars
import re
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Any, Protocol, Unpack, cast

import orjson
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from stepwell.api import models
from stepwell.api.access import Keys, KeyScope, bearer, require
from stepwell.api.approvals import APPROVAL_OPERATIONS, ApprovalApi, Approvals, keys_unreadable, page_routes
from stepwell.api.body import body_of
from stepwell.api.event_types import OPERATIONS as TYPE_OPERATIONS
from stepwell.api.event_types import TypeRegistry, TypesApi
from stepwell.api.health import Broken, health
from stepwell.api.openapi import Operation, Parameter, document
from stepwell.api.paging import PAGING as _PAGING
from stepwell.api.paging import alone
from stepwell.api.paging import found as _found
from stepwell.api.paging import page as _page
from stepwell.api.paging import paging as _paging
from stepwell.api.problem import CONTENT_TYPE, Problem
from stepwell.api.replay import REPLAY, read_replay, replay_view
from stepwell.api.rerun import RERUN, read_rerun
from stepwell.api.routing import OPERATIONS as ROUTING_OPERATIONS
from stepwell.api.routing import Lifecycle, RoutingApi
from stepwell.api.slashes import WithoutSlash
from stepwell.api.times import BETWEEN, between
from stepwell.api.users import USER_OPERATIONS, UserEndpoints, Users
from stepwell.api.views import event_view, function_view, run_text, run_view
from stepwell.api.webhook_rules import OPERATIONS as WEBHOOK_OPERATIONS
from stepwell.api.webhook_rules import Webhooks, WebhooksApi
from stepwell.core.events.events import Event
from stepwell.core.run.approvals import Links
from stepwell.core.run.resume import CannotResume, Restart
from stepwell.core.run.run import RunStatus
from stepwell.core.signing import KeysUnreadable
from stepwell.platform import EventDetail, Page, Reader, Replayed, RunQuery

_MOST_FILE_BYTES = 256 * 1024 * 1024
_READERS = ThreadPoolExecutor(2, "reader")


class Control(Protocol):
    """What the API can do to runs; called from any thread."""

    def cancel(self, run_id: str) -> None: ...

    def rerun(self, run_id: str, restart: Restart | None) -> str | None:
        """From the start, or from a step. The new run's id; None if the function is not live. Raises CannotResume."""

    def replay(
        self, function_id: str, version: int, events: Sequence[str | Event], replay: str
    ) -> Sequence[Replayed] | None:
        """Run stored events, or others that are stored for this, on one version; None if there is no such version."""


class ReadsUsers(Reader, Users, Protocol):
    """What reads of events, runs and users ask for."""


@dataclass(frozen=True, slots=True)
class V1:
    reader: Reader
    control: Control
    links: Callable[[], Links]  # by which people decide on approvals

    # --- events ----------------------------------------------------------------------------------------------------

    def list_events(self, request: Request) -> Any:
        query = request.query_params
        if (event_id := alone(request, "id")) is not None:
            found = self.reader.read_event(event_id)
            return _page(Page([] if found is None else [found], None), self._event_view)
        page = self.reader.read_events(
            name=query.get("name"), user=query.get("user"), **between(query), **_paging(request)
        )
        return _page(page, self._event_view)

    def get_event(self, request: Request) -> Any:
        event_id = request.path_params["id"]
        return self._event_view(_found(self.reader.read_event(event_id), "event", event_id))

    def _event_view(self, detail: EventDetail) -> Any:
        return event_view(detail, self.links)

    def list_event_runs(self, request: Request) -> Any:
        event_id = request.path_params["id"]
        _found(self.reader.read_event(event_id), "event", event_id)
        return self._list_runs(event=event_id, **_paging(request))

    # --- functions -------------------------------------------------------------------------------------------------

    def list_functions(self, request: Request) -> Any:
        functions, paging = self.reader.read_functions(), _paging(request)
        start = paging["before"] or 0
        end = start + paging["limit"]
        return _page(Page(functions[start:end], end if end < len(functions) else None), function_view)

    def get_function(self, request: Request) -> Any:
        function_id = request.path_params["id"]
        return function_view(_found(self.reader.read_function(function_id), "function", function_id))

    def replay_events(self, request: Request) -> Any:
        function_id = request.path_params["id"]
        asked = read_replay(request.state.body)
        function = _found(self.reader.read_function(function_id), "function", function_id)
        version = asked.version or function.version
        if function.routing.is_paused:
            raise Problem(409, f"function {function_id} is paused; `stepwell resume {function_id}` lets it run again")
        if version is None:
            raise Problem(409, f"function {function_id} is not live; name a version, or make one live")
        done = self.control.replay(function_id, version, asked.events, asked.replay)
        if done is None:
            known = ", ".join(str(version.number) for version in function.versions)
            raise Problem(409, f"function {function_id} has no version {version}; it has {known}")
        return replay_view(asked.replay, function_id, version, done)

    # --- runs ------------------------------------------------------------------------------------------------------

    def list_runs(self, request: Request) -> Any:
        query = request.query_params
        status = query.get("status")
        statuses = {s.name.lower(): s for s in RunStatus}
        if status is not None and status not in statuses:
            raise Problem(400, f"status={status} is unknown; it is one of {', '.join(statuses)}")
        if (event_id := alone(request, "event", "limit", "after")) is not None:
            return self._list_runs(event=event_id, **_paging(request))
        return self._list_runs(
            function=query.get("function"),
            status=None if status is None else statuses[status],
            user=query.get("user"),
            replay=query.get("replay"),
            **between(query),
            **_paging(request),
        )

    def _list_runs(self, **query: Unpack[RunQuery]) -> Any:
        return _page(self.reader.read_run_texts(run_text, **query), orjson.Fragment)

    def get_run(self, request: Request) -> Any:
        run_id = request.path_params["id"]
        return run_view(_found(self.reader.read_run(run_id), "run", run_id), self.links, read=orjson.Fragment)

    def cancel_run(self, request: Request) -> Any:
        run_id = request.path_params["id"]
        status = self._run(run_id)["status"]
        if status == "running":
            self.control.cancel(run_id)
            status = self._run(run_id)["status"]
        if status != "cancelled":
            raise Problem(409, f"run {run_id} has {status}; only a running one can be cancelled")
        return self._run(run_id)

    def rerun_run(self, request: Request) -> Any:
        run_id = request.path_params["id"]
        run = self._run(run_id)
        event = self.reader.read_event(run["event_id"])
        if event is not None and event.event.erased:
            raise Problem(409, f"the event of run {run_id} was erased, so it cannot run again")
        restart = read_rerun(request.state.body)
        try:
            new_id = self.control.rerun(run_id, restart)
        except CannotResume as reason:
            raise Problem(409, str(reason)) from None
        if new_id is None:
            raise Problem(409, f"function {run['function_id']} is not live any more, so its runs cannot run again")
        return self._run(new_id)

    def _run(self, run_id: str) -> models.RunView:
        return run_view(_found(self.reader.read_run(run_id), "run", run_id), self.links)


_USER = Parameter("user", "any id of the event's user: external_id, id, email or phone")
_STATUS = Parameter("status", "only runs that are now", {"enum": [s.name.lower() for s in RunStatus]})

OPERATIONS = (
    Operation("GET", "/v1/events", "list_events", "Events, newest first", models.EventList,
              (Parameter("id", "the event with this id"), Parameter("name", "only events of this name"), _USER,
               *BETWEEN, *_PAGING)),
    Operation("GET", "/v1/events/{id}/runs", "list_event_runs", "The runs an event started", models.RunList, _PAGING),
    Operation("GET", "/v1/events/{id}", "get_event", "An event, and what it did not start", models.EventView),
    Operation("GET", "/v1/functions", "list_functions", "The live functions", models.FunctionList, _PAGING),
    Operation("GET", "/v1/functions/{id}", "get_function", "A function and its versions", models.FunctionView),
    Operation("GET", "/v1/runs", "list_runs", "Runs, newest first (without logs)", models.RunList,
              (Parameter("event", "only runs of the event with this id"),
               Parameter("function", "only runs of this function"), _STATUS, _USER,
               Parameter("replay", "only runs of this replay"), *BETWEEN, *_PAGING)),
    Operation("GET", "/v1/runs/{id}", "get_run", "A run with its steps, attempts and logs", models.RunView),
    Operation("DELETE", "/v1/runs/{id}", "cancel_run", "Cancel a run", models.RunView, errors=(409, 503)),
    Operation("POST", "/v1/runs/{id}/rerun", "rerun_run", "Run the same event again on the live version",
              models.RunView, status=201, errors=(409, 503), body=RERUN, needs_body=False),
    Operation("POST", "/v1/functions/{id}/replay", "replay_events", "Run stored events again, on this one function",
              models.ReplayView, errors=(409, 503), body=REPLAY),
)  # fmt: skip


def create_app(
    reader: Reader,
    control: Control,
    types: TypeRegistry,
    users: Users,
    lifecycle: Lifecycle,
    approvals: Approvals,
    webhooks: Webhooks,
    keys: Keys,
    broken: Callable[[], Sequence[Broken]] = tuple,
) -> Starlette:
    """The ASGI application of `/v1`, `/openapi.json`, `/healthz` and the page of approvals. `broken`: what is not in
    service, as `/healthz` says."""
    approval_api = ApprovalApi(approvals)
    v1 = [
        (V1(reader, control, approvals.links), OPERATIONS),
        (approval_api, APPROVAL_OPERATIONS),
        (RoutingApi(reader, lifecycle, types), ROUTING_OPERATIONS),
        (TypesApi(types, reader.read_functions), TYPE_OPERATIONS),
        (UserEndpoints(users), USER_OPERATIONS),
        (WebhooksApi(webhooks), WEBHOOK_OPERATIONS),
    ]

    async def healthz(request: Request) -> Response:  # however many threads are busy
        found, key = broken(), bearer(request.headers.get("authorization"))
        return _json(health(found, may_know_why=bool(found) and keys.scope_of(key) is KeyScope.MANAGE))

    described = Lazy(lambda: orjson.dumps(document([o for _, operations in v1 for o in operations])))

    async def openapi(request: Request) -> Response:
        return Response(described.made or await run_in_threadpool(described), media_type="application/json")

    others = [Route("/healthz", healthz), Route("/openapi.json", openapi), *page_routes(approval_api)]
    return _application([*others, *_routes(v1, keys)])


def create_reads_app(users: ReadsUsers, links: Callable[[], Links], keys: Keys) -> Starlette:
    """The reads of events, runs and users alone."""
    no_control = cast(Control, None)  # reads ask nothing of it
    v1 = [(V1(users, no_control, links), OPERATIONS), (UserEndpoints(users), USER_OPERATIONS)]
    return _application(_routes([(item, [o for o in all_of if o.method == "GET"]) for item, all_of in v1], keys))


def _routes(v1: Iterable[tuple[Any, Iterable[Operation]]], keys: Keys) -> list[Route]:
    return [
        Route(_pattern(o.path), _endpoint(item, o, keys), methods=[o.method])
        for item, operations in v1
        for o in operations
    ]


def _application(routes: Sequence[Route]) -> Starlette:
    app = Starlette(
        routes=routes,
        exception_handlers={
            Problem: _refuse,
            KeysUnreadable: lambda request, _: _refuse(request, keys_unreadable()),
            HTTPException: _http_error,
            ClientDisconnect: _nobody_listens,
            Exception: _server_error,
        },
    )
    app.router.redirect_slashes = False  # it would redirect to whatever host the client names
    app.add_middleware(WithoutSlash)
    return app


class Lazy:
    """What is made when it is first asked for, by one thread."""

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._make, self._lock = make, threading.Lock()
        self.made: bytes | None = None

    def __call__(self) -> bytes:
        with self._lock:
            if self.made is None:
                self.made = self._make()
            return self.made


def _pattern(path: str) -> str:
    """Senders choose the ids of events, and types have the names of events: these may have slashes."""
    return re.sub("/(events|types)/{id}", r"/\1/{id:path}", path)


def _endpoint(v1: Any, operation: Operation, keys: Keys) -> Callable[[Request], Response | Awaitable[Response]]:
    handle = getattr(v1, operation.handler)

    def admit(request: Request) -> None:
        """What can be refused without the body, before any of it is read."""
        if operation.is_public:
            v1.admit(request)
        else:
            require(keys, bearer(request.headers.get("authorization")), KeyScope.MANAGE)
        _refuse_unknown(request, operation)

    def answer(request: Request) -> Response:
        return _json(handle(request), operation.status)

    def admit_and_answer(request: Request) -> Response:
        admit(request)
        return answer(request)

    async def read(request: Request) -> Response:
        """Reads wait for nobody, so that a few threads do: more would only keep the engine from running."""
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(_READERS, context.run, admit_and_answer, request)

    async def with_body(request: Request) -> Response:
        await run_in_threadpool(admit, request)
        request.state.body = await body_of(request)
        return await run_in_threadpool(answer, request)

    async def with_file(request: Request) -> Response:
        await run_in_threadpool(admit, request)
        with tempfile.TemporaryFile() as file:
            await _receive(request, file)
            request.state.body = file
            return await run_in_threadpool(answer, request)

    if operation.method == "GET":
        return read
    if operation.body is None:
        return admit_and_answer
    return with_body if operation.media_type == "application/json" else with_file


async def _receive(request: Request, file: IO[bytes]) -> None:
    """Raises Problem 413, ClientDisconnect."""
    if int(request.headers.get("content-length", 0)) > _MOST_FILE_BYTES:
        raise _too_large()
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > _MOST_FILE_BYTES:
            raise _too_large()
        file.write(piece)
    file.seek(0)


def _too_large() -> Problem:
    return Problem(413, f"a file may have {_MOST_FILE_BYTES // 1024**2} MB")


def _json(data: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(data), status, media_type="application/json")


def _refuse(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)
    return Response(problem.body(), problem.status, headers=problem.headers, media_type=CONTENT_TYPE)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = {404: f"there is nothing at {request.url.path}", 405: f"{request.method} is not possible here"}
    problem = Problem(error.status_code, detail.get(error.status_code, error.detail))
    return Response(problem.body(), problem.status, headers=error.headers, media_type=CONTENT_TYPE)


def _nobody_listens(request: Request, gone: Exception) -> Response:
    return _refuse(request, Problem(400, "the request ended before its body did"))


def _server_error(request: Request, error: Exception) -> Response:
    return _refuse(request, Problem(500, "the server could not do this; its log says why"))


def _refuse_unknown(request: Request, operation: Operation) -> None:
    known = [parameter.name for parameter in operation.query]
    for name in request.query_params:
        if name not in known:
            hint = f"known are {', '.join(known)}" if known else "there are none here"
            raise Problem(400, f"the parameter {name!r} is unknown; {hint}")

"""The ASGI application of `/v1`. The routes and the OpenAPI document are made from the same table of operations."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, cast

import orjson
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from stepwell.api.access import Keys, KeyScope, bearer
from stepwell.api.approvals.approvals import APPROVAL_OPERATIONS, ApprovalApi, Approvals, page_routes
from stepwell.api.http.slashes import WithoutSlash
from stepwell.api.openapi import Operation, document
from stepwell.api.v1.endpoint import EXCEPTION_HANDLERS, endpoint, json_answer
from stepwell.api.v1.event_types import OPERATIONS as TYPE_OPERATIONS
from stepwell.api.v1.event_types import TypeRegistry, TypesApi
from stepwell.api.v1.events import OPERATIONS as EVENT_OPERATIONS
from stepwell.api.v1.events import EventsApi
from stepwell.api.v1.functions import OPERATIONS as FUNCTION_OPERATIONS
from stepwell.api.v1.functions import FunctionsApi
from stepwell.api.v1.health import Broken, health
from stepwell.api.v1.limits import OPERATIONS as LIMIT_OPERATIONS
from stepwell.api.v1.limits import Limits, LimitsApi
from stepwell.api.v1.routing import OPERATIONS as ROUTING_OPERATIONS
from stepwell.api.v1.routing import Lifecycle, RoutingApi
from stepwell.api.v1.runs import OPERATIONS as RUN_OPERATIONS
from stepwell.api.v1.runs import Control, RunsApi
from stepwell.api.v1.sources import OPERATIONS as SOURCE_OPERATIONS
from stepwell.api.v1.sources import Sources, SourcesApi
from stepwell.api.v1.users import USER_OPERATIONS, UserEndpoints, Users
from stepwell.api.v1.webhook_rules import OPERATIONS as WEBHOOK_OPERATIONS
from stepwell.api.v1.webhook_rules import Webhooks, WebhooksApi
from stepwell.api.v1.workers import OPERATIONS as WORKER_OPERATIONS
from stepwell.api.v1.workers import NoWorkers, Workers, WorkersApi
from stepwell.core.run.approvals import Links
from stepwell.reader import Reader


class ReadsUsers(Reader, Users, Protocol):
    """Reads events, runs, functions and users."""


class Controls(Control, Lifecycle, Protocol):
    """Changes runs, and the versions of functions."""


def create_app(
    reader: ReadsUsers,
    control: Controls,
    types: TypeRegistry,
    approvals: Approvals,
    webhooks: Webhooks,
    keys: Keys,
    broken: Callable[[], Sequence[Broken]] = tuple,
    sources: Sources | None = None,
    workers: Workers | None = None,
    limits: Limits | None = None,
) -> Starlette:
    """The ASGI application of `/v1`, `/openapi.json`, `/healthz` and the approval page. `broken` returns the broken
    definitions for `/healthz`. `sources` is None on platforms that do not read sources themselves, `workers` on those
    to which workers cannot connect, `limits` on those
    that have none."""
    approval_api = ApprovalApi(approvals)
    v1 = [
        *_history(reader, control, approvals.links),
        (approval_api, APPROVAL_OPERATIONS),
        (RoutingApi(reader, control, types), ROUTING_OPERATIONS),
        (TypesApi(types, reader.read_functions), TYPE_OPERATIONS),
        (UserEndpoints(reader), USER_OPERATIONS),
        (WebhooksApi(webhooks), WEBHOOK_OPERATIONS),
        (WorkersApi(workers or NoWorkers()), WORKER_OPERATIONS),
    ]
    if limits is not None:
        v1.append((LimitsApi(limits), LIMIT_OPERATIONS))
    if sources is not None:
        v1.append((SourcesApi(sources), SOURCE_OPERATIONS))

    async def healthz(request: Request) -> Response:  # async, so that it answers even if all threads are busy
        found, key = broken(), bearer(request.headers.get("authorization"))
        return json_answer(health(found, may_know_why=bool(found) and keys.scope_of(key) is KeyScope.MANAGE))

    api_document = Lazy(lambda: orjson.dumps(document([o for _, operations in v1 for o in operations])))

    async def openapi(request: Request) -> Response:
        return Response(api_document.made or await run_in_threadpool(api_document), media_type="application/json")

    routes = [Route("/healthz", healthz), Route("/openapi.json", openapi), *page_routes(approval_api)]
    return _application([*routes, *_routes(v1, keys)])


def create_reads_app(reader: ReadsUsers, links: Callable[[], Links], keys: Keys) -> Starlette:
    """The ASGI application that only reads: events, functions, runs and users."""
    no_control = cast(Control, None)  # not used by GET operations
    v1 = [*_history(reader, no_control, links), (UserEndpoints(reader), USER_OPERATIONS)]
    return _application(_routes([(item, [o for o in all_of if o.method == "GET"]) for item, all_of in v1], keys))


def _history(reader: Reader, control: Control, links: Callable[[], Links]) -> list[tuple[Any, tuple[Operation, ...]]]:
    """The operations on events, functions and runs."""
    return [
        (EventsApi(reader, links), EVENT_OPERATIONS),
        (FunctionsApi(reader, control), FUNCTION_OPERATIONS),
        (RunsApi(reader, control, links), RUN_OPERATIONS),
    ]


def _routes(v1: Iterable[tuple[Any, Iterable[Operation]]], keys: Keys) -> list[Route]:
    return [
        Route(_pattern(o.path), endpoint(item, o, keys), methods=[o.method])
        for item, operations in v1
        for o in operations
    ]


def _application(routes: Sequence[Route]) -> Starlette:
    app = Starlette(routes=routes, exception_handlers=EXCEPTION_HANDLERS)
    app.router.redirect_slashes = False  # a redirect would use the Host header of the client
    app.add_middleware(WithoutSlash)
    return app


class Lazy:
    """A value that is made at the first call, by one thread."""

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._make, self._lock = make, threading.Lock()
        self.made: bytes | None = None

    def __call__(self) -> bytes:
        with self._lock:
            if self.made is None:
                self.made = self._make()
            return self.made


def _pattern(path: str) -> str:
    """The route's path. Ids of events and names of types may contain slashes."""
    return re.sub("/(events|types)/{id}", r"/\1/{id:path}", path)

"""`/v1` in a Lambda behind API Gateway: the ASGI application of all platforms, with the reads and the engine of AWS.

Large answers are compressed for clients that accept gzip. An answer that is too large for Lambda is replaced by an
error that says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any
from urllib.parse import quote

import orjson
from botocore.exceptions import ClientError
from mangum import Mangum
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response

from stepwell.api.http.problem import CONTENT_TYPE, Problem
from stepwell.api.v1.app import create_app
from stepwell.api.v1.routing import Pushed
from stepwell.aws.api.approvals import AwsApprovals
from stepwell.aws.api.keys import KeyStore
from stepwell.aws.api.users import AwsUsers
from stepwell.aws.engine.control import Control
from stepwell.aws.functions.event_types import TypeStore
from stepwell.aws.functions.registry import Registry
from stepwell.aws.functions.webhooks import AwsWebhooks
from stepwell.aws.resources import Resources
from stepwell.aws.throttled import throttled
from stepwell.core.events.events import Event
from stepwell.core.routing.guard import RunSample
from stepwell.core.routing.versions import Release, Routing, RoutingChange
from stepwell.core.run.approvals import Link
from stepwell.core.run.messages import Outcome
from stepwell.core.run.resume import Restart
from stepwell.core.signing import KeysUnreadable
from stepwell.platform import NotWritten, Replayed

Request = dict[str, Any]
Answer = dict[str, Any]

_WORTH_COMPRESSING = 100_000  # bytes
_IN_PATHS = "/:@!$&'()*+,;="  # characters that are not percent-encoded in paths
_MOST_BYTES = 6 * 1024 * 1024 - 20_000  # of the body in a Lambda's answer; the rest is for headers
_TOO_LARGE = "the answer is larger than the 6 MB that a Lambda can return; use a smaller limit=, or accept gzip"


class HttpControl:
    """Implements `api.v1.runs.Control` and `api.v1.routing.Lifecycle`.

    The engine is created when it is first needed, because most requests only read.
    """

    def __init__(self, control: Callable[[], Control], queries: AwsUsers) -> None:
        self._control, self._queries = control, queries

    def cancel(self, run_id: str) -> None:
        with _unavailable():
            self._control().cancel(run_id)

    def decide(self, link: Link, outcome: Outcome) -> bool:
        with _unavailable():
            return self._control().decide(link, outcome)

    def rerun(self, run_id: str, restart: Restart | None) -> str | None:
        with _unavailable():
            return self._control().rerun(run_id, restart)

    def replay(
        self, function_id: str, version: int, events: Sequence[str | Event], replay: str
    ) -> list[Replayed] | None:
        with _unavailable():
            return self._control().replay(function_id, version, events, replay)

    def read_samples(self, function_id: str, limit: int) -> Sequence[RunSample]:
        return self._queries.read_samples(function_id, limit)

    def change_routing(self, function_id: str, change: RoutingChange) -> Routing:
        return self._control().change_routing(function_id, change)

    def push(self, archive: IO[bytes], release: Release) -> Pushed:
        raise Problem(409, "pushes to AWS do not go through the HTTP API; use `stepwell push --env NAME`")

    def cancel_runs(self, function_id: str) -> None:
        self._control().cancel_runs(function_id)


@contextmanager
def _unavailable() -> Iterator[None]:
    """Turns errors after which the client must send the request again into a 503."""
    try:
        yield
    except (NotWritten, KeysUnreadable) as reason:
        raise Problem(503, f"{reason}; try again", {"retry-after": "1"}) from None


def api_of(resources: Resources, engine_control: Callable[[], Control]) -> Callable[[Request, Any], Answer]:
    """The function that answers API Gateway requests (payload format 2.0).

    `engine_control`: called when a request needs the engine.
    """
    registry = Registry(resources)
    users = AwsUsers(resources, registry, lambda run_id: engine_control().cancel(run_id))
    control = HttpControl(engine_control, users)
    approvals = AwsApprovals(resources, users, control.decide)
    webhooks = AwsWebhooks(resources)
    types, keys = TypeStore(resources), KeyStore(resources)
    app = create_app(users, control, types, approvals, webhooks, keys)
    app.add_exception_handler(ClientError, _refuse_throttled)
    app.add_middleware(GZipMiddleware, minimum_size=_WORTH_COMPRESSING)
    with _event_loop():
        answer = Mangum(app, lifespan="off", text_mime_types=["application/json", CONTENT_TYPE, "text/"])

    def handle(request: Request, context: Any) -> Answer:
        with _event_loop():
            answered: Answer = answer(_with_quoted_path(request), context)
        size = len(orjson.dumps(answered["body"]))  # as a JSON string, which is how Lambda returns it
        if size <= _MOST_BYTES:
            return answered
        problem = Problem(500, _TOO_LARGE)
        headers = {"content-type": CONTENT_TYPE}
        return {"statusCode": 500, "headers": headers, "body": problem.body().decode(), "isBase64Encoded": False}

    return handle


def _refuse_throttled(request: Any, error: Exception) -> Response:
    """A 503 for the client when AWS throttles requests, even after boto3's own retries."""
    assert isinstance(error, ClientError)
    problem = throttled(error)
    return Response(problem.body(), problem.status, headers=problem.headers, media_type=CONTENT_TYPE)


def _with_quoted_path(request: Request) -> Request:
    """The request with a percent-encoded path. API Gateway decodes the path and Mangum decodes it again, which would
    change names that contain a percent sign."""
    request_context = request["requestContext"]
    http = {**request_context["http"], "path": quote(request["rawPath"], safe=_IN_PATHS)}
    return {**request, "requestContext": {**request_context, "http": http}}


@contextmanager
def _event_loop() -> Iterator[None]:
    """Sets an event loop for Mangum, which uses the loop of the thread, and closes it after the request."""
    with asyncio.Runner() as runner:
        runner.get_loop()
        yield

"""Builds the endpoint of an operation: checks the API key, reads the body, calls the handler, encodes the answer.

Handlers are plain functions that run in threads, so that a slow read does not block the engine.
"""

from __future__ import annotations

import asyncio
import contextvars
import tempfile
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from stepwell.api.access import Keys, KeyScope, bearer, require
from stepwell.api.approvals.approvals import keys_unreadable
from stepwell.api.http.body import body_of
from stepwell.api.http.problem import CONTENT_TYPE, Problem
from stepwell.api.openapi import Operation
from stepwell.core.signing import KeysUnreadable

_MAX_FILE_BYTES = 256 * 1024 * 1024
_READERS = ThreadPoolExecutor(2, "reader")


def endpoint(api: Any, operation: Operation, keys: Keys) -> Callable[[Request], Response | Awaitable[Response]]:
    """The endpoint of an operation, which calls the method of `api` that is named by `operation.handler`."""
    handle = getattr(api, operation.handler)

    def admit(request: Request) -> None:
        _admit(api, operation, keys, request)

    def answer(request: Request) -> Response:
        return json_answer(handle(request), operation.status)

    def admit_and_answer(request: Request) -> Response:
        admit(request)
        return answer(request)

    async def read(request: Request) -> Response:
        """Runs a read in one of a few threads. More threads would only slow down the engine, as reads do not wait."""
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


def _admit(api: Any, operation: Operation, keys: Keys, request: Request) -> None:
    """Checks the API key and the query, before the body is read. Raises Problem."""
    if operation.is_public:
        api.admit(request)
    else:
        require(keys, bearer(request.headers.get("authorization")), KeyScope.MANAGE)
    _refuse_unknown(request, operation)


async def _receive(request: Request, file: IO[bytes]) -> None:
    """Writes the request body to a file. Raises Problem 413 or ClientDisconnect."""
    if int(request.headers.get("content-length", 0)) > _MAX_FILE_BYTES:
        raise _too_large()
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > _MAX_FILE_BYTES:
            raise _too_large()
        file.write(piece)
    file.seek(0)


def _too_large() -> Problem:
    return Problem(413, f"the file is larger than {_MAX_FILE_BYTES // 1024**2} MB")


def json_answer(data: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(data), status, media_type="application/json")


def _refuse_unknown(request: Request, operation: Operation) -> None:
    known = [parameter.name for parameter in operation.query]
    for name in request.query_params:
        if name not in known:
            hint = f"use {', '.join(known)}" if known else "this path has no parameters"
            raise Problem(400, f"the parameter {name!r} is unknown; {hint}")


# --- errors ----------------------------------------------------------------------------------------------------------


def _refuse(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)
    return Response(problem.body(), problem.status, headers=problem.headers, media_type=CONTENT_TYPE)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = {404: f"there is nothing at {request.url.path}", 405: f"{request.method} is not allowed here"}
    problem = Problem(error.status_code, detail.get(error.status_code, error.detail))
    return Response(problem.body(), problem.status, headers=error.headers, media_type=CONTENT_TYPE)


def _disconnected(request: Request, error: Exception) -> Response:
    return _refuse(request, Problem(400, "the request ended before the body was complete"))


def _server_error(request: Request, error: Exception) -> Response:
    return _refuse(request, Problem(500, "internal server error; the server's log has the cause"))


EXCEPTION_HANDLERS: dict[Any, Callable[[Request, Exception], Response]] = {
    Problem: _refuse,
    KeysUnreadable: lambda request, _: _refuse(request, keys_unreadable()),
    HTTPException: _http_error,
    ClientDisconnect: _disconnected,
    Exception: _server_error,
}

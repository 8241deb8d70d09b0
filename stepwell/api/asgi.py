"""The ASGI application of a server on one machine.

Requests that become events (`/e`, `/webhooks`) are handled without a framework, because they must be fast. Starlette
handles the rest.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp

from stepwell.api.access import Keys, LocalOnly
from stepwell.api.http.body import read_body
from stepwell.api.http.problem import CONTENT_TYPE, Problem
from stepwell.api.ingest.cors import CORS, preflight
from stepwell.api.ingest.ingest import WEBHOOKS, accepted, in_pieces, read_events, refusal, require_sender
from stepwell.api.ingest.turns import Turns
from stepwell.core.events.events import Event
from stepwell.core.events.request import BadRequest, EventError

if TYPE_CHECKING:
    from stepwell.api.webhooks.webhooks import Hooks

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]
Judge = Callable[[Iterable[tuple[int, Event]]], Awaitable[list[EventError]]]
"""Returns the schema errors of events, which are given with their index in the request."""

Sender = Callable[[Sequence[Event]], Future[None]]
"""Accepts events; they are durable once the future is done."""

_AT_ONCE = 16 * 1024  # bytes; a larger body is parsed in slices, so that the event loop is not blocked

_CORS: Sequence[Header] = [(name.encode(), value.encode()) for name, value in CORS.items()]


@dataclass(frozen=True, slots=True)
class EventSink:
    """The functions that accept events of requests.

    `accept` makes events durable, or raises. `judge` returns schema errors. `now` returns the time in ms. `at_once`
    returns a function that accepts events without a schema check; None while all events need a check.
    """

    accept: Callable[[Sequence[Event]], Awaitable[None]]
    judge: Judge
    now: Callable[[], int]
    at_once: Callable[[], Sender | None]


class App:
    """The whole ASGI application. `rest` handles all other paths. `local_only` protects a server without API keys."""

    def __init__(self, rest: ASGIApp, hooks: Hooks, keys: Keys, sink: EventSink, local_only: LocalOnly | None) -> None:
        self._rest, self._hooks, self._keys, self._local_only = rest, hooks, keys, local_only
        self._accept, self._judge, self._now, self._at_once = sink.accept, sink.judge, sink.now, sink.at_once
        self._turns = Turns()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        is_ingest = path.startswith("/e/") or path == "/e"
        headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        cors = _CORS if origin is not None and is_ingest else ()
        try:
            if self._local_only is not None:
                self._local_only.check(_text(headers.get(b"host")), _text(origin))
            if is_ingest:
                await self._take_events(scope, headers, receive, send, cors)
            elif path.startswith(WEBHOOKS):
                await self._take_delivery(scope, headers, receive, send)
            else:
                await self._rest(scope, receive, send)
        except Problem as problem:
            await _respond(
                send, problem.status, problem.body(), [*_pairs(problem.headers), *cors], CONTENT_TYPE.encode()
            )

    async def _take_events(
        self, scope: Message, headers: dict[bytes, bytes], receive: Receive, send: Send, cors: Sequence[Header]
    ) -> None:
        if scope["method"] == "OPTIONS":
            wanted = _text(headers.get(b"access-control-request-headers"))
            await _respond(send, 204, b"", _pairs(preflight(wanted)) if cors else ())
            return
        if scope["method"] != "POST":
            raise Problem(405, "send events with POST", {"allow": "POST, OPTIONS"})
        require_sender(self._keys, scope["path"][3:].rstrip("/") or None, _text(headers.get(b"authorization")))
        body = await read_body(receive, headers.get(b"content-length"))
        fields = _texts(scope["headers"])
        try:
            events = read_events(fields, body, self._now()) if len(body) <= _AT_ONCE else await self._read(fields, body)
        except BadRequest as bad:
            raise refusal(bad.with_more(await self._judge(bad.others))) from None
        await self._accept(events)
        await _respond(send, 200, accepted(events), cors)

    async def _read(self, headers: Mapping[str, str], body: bytes) -> list[Event]:
        pieces = in_pieces(headers, body, self._now())
        if pieces is not None:
            return await self._turns.in_pieces(pieces)
        return await self._turns.in_thread(partial(read_events, headers, body, self._now()))

    # --- a faster path for most requests, without ASGI messages ------------------------------------------------------

    def admits(self, scope: Message, size: int) -> dict[str, str] | None:
        """The headers of a request, if `take_at_once` can handle it; otherwise None.

        `size` is the size of the body in bytes. None also for senders without a valid key.
        """
        path: str = scope["path"]
        if scope["method"] != "POST" or not path.startswith("/e/") or size > _AT_ONCE or self._at_once() is None:
            return None
        fields = _texts(scope["headers"])
        if "origin" in fields:
            return None
        try:
            if self._local_only is not None:
                self._local_only.check(fields.get("host"), None)
            require_sender(self._keys, path[3:].rstrip("/") or None, fields.get("authorization"))
        except Problem:
            return None
        return fields

    def take_at_once(self, headers: Mapping[str, str], body: bytes) -> tuple[list[Event], Future[None]] | None:
        """The events of a request that `admits` has accepted, and a future that is done once they are durable. None if
        the events are refused, or need a schema check first."""
        send = self._at_once()
        if send is None:
            return None
        try:
            events = read_events(headers, body, self._now())
        except (BadRequest, Problem):
            return None
        return events, send(events)

    def end_of(self, events: Sequence[Event], error: BaseException | None) -> ASGIApp:
        """The application that answers such a request: with the ids of the events, or with 503 if there was an
        error."""

        async def answer(scope: Message, receive: Receive, send: Send) -> None:
            if error is None:
                await _respond(send, 200, accepted(events))
                return
            problem = Problem(503, str(error))
            await _respond(send, problem.status, problem.body(), (), CONTENT_TYPE.encode())

        return answer

    # --- webhooks ----------------------------------------------------------------------------------------------------

    async def _take_delivery(self, scope: Message, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        from stepwell.api.webhooks import webhooks  # imported late: few servers have webhooks

        method: str = scope["method"]
        if method not in webhooks.ALLOWED:
            raise Problem(405, "send webhook requests with POST", {"allow": ", ".join(webhooks.ALLOWED)})
        name = scope["path"].removeprefix(WEBHOOKS).rstrip("/")
        webhooks.rule_of(self._hooks, name)
        body = await read_body(receive, headers.get(b"content-length")) if method == "POST" else b""
        fields: dict[str, str] = {}
        for field, value in scope["headers"]:  # repeated headers are joined by commas (RFC 9110, 5.3)
            field, value = field.decode("latin-1").lower(), value.decode("latin-1")
            fields[field] = f"{fields[field]},{value}" if field in fields else value
        delivery = webhooks.Delivery(name, fields, scope["query_string"].decode("latin-1"), body, method)
        in_thread = self._turns.in_thread if len(body) > _AT_ONCE else None
        received = await webhooks.receive_async(self._hooks, delivery, self._now(), in_thread)
        if (reply := received.reply) is not None:
            await _respond(send, 200, reply.body, _pairs(reply.headers), reply.content_type.encode())
            return
        events = [] if received.event is None else [received.event]
        if events:
            await self._accept(events)
        await webhooks.confirm_async(self._hooks, received)
        await _respond(send, 200, accepted(events))


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def _texts(headers: Iterable[Header]) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}


def _pairs(headers: Mapping[str, str]) -> list[Header]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


async def _respond(
    send: Send, status: int, body: bytes, more: Sequence[Header] = (), content_type: bytes = b"application/json"
) -> None:
    headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode()), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

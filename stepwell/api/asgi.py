"""One ASGI application: what becomes events (`/e`, `/webhooks`) by hand, since all of them pass here, and the rest by
Starlette."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp

from stepwell.api.access import Keys, LocalOnly
from stepwell.api.cors import CORS
from stepwell.api.ingest import WEBHOOKS, Judge, accepted, read_events
from stepwell.api.problem import CONTENT_TYPE, Problem
from stepwell.core.events import MAX_BODY_BYTES, Event

if TYPE_CHECKING:
    from stepwell.api.webhooks import Hooks

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

_CORS: Sequence[Header] = [(name.encode(), value.encode()) for name, value in CORS.items()]


class App:
    """`rest`: the application of everything else. `accept` makes events durable, and raises if it cannot; `judge` says
    what their types have against them; `local_only` guards a server that asks for no key."""

    def __init__(
        self,
        rest: ASGIApp,
        hooks: Hooks,
        keys: Keys,
        accept: Callable[[Sequence[Event]], Awaitable[None]],
        judge: Judge,
        now: Callable[[], int],
        local_only: LocalOnly | None,
    ) -> None:
        self._rest, self._hooks, self._keys = rest, hooks, keys
        self._accept, self._judge, self._now, self._local_only = accept, judge, now, local_only

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._rest(scope, receive, send)
        path: str = scope["path"]
        is_ingest = path.startswith("/e/") or path == "/e"
        is_webhook = path.startswith(WEBHOOKS)
        headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        cors = _CORS if origin is not None and is_ingest else ()
        try:
            if self._local_only is not None:
                self._local_only.check(_text(headers.get(b"host")), _text(origin))
            if not is_ingest and not is_webhook:
                return await self._rest(scope, receive, send)
            if scope["method"] == "OPTIONS" and is_ingest:
                return await _respond(send, 204, b"", cors)
            if scope["method"] != "POST":
                raise Problem(405, "events are sent with POST", {"allow": "POST, OPTIONS" if is_ingest else "POST"})
            body = await _read(receive, headers)
            if is_webhook:
                events = self._of_webhook(scope, body)
            else:
                its = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
                events = read_events(self._keys, path[3:] or None, its, body, self._now(), self._judge)
            if events:
                await self._accept(events)
            await _respond(send, 200, accepted(events), cors)
        except Problem as problem:
            more = [(name.encode(), value.encode()) for name, value in problem.headers.items()]
            await _respond(send, problem.status, problem.body(), [*more, *cors], CONTENT_TYPE.encode())

    def _of_webhook(self, scope: Message, body: bytes) -> Sequence[Event]:
        from stepwell.api.webhooks import event_of_request  # few servers have any

        headers: dict[str, str] = {}
        for name, value in scope["headers"]:  # what comes twice is joined, as RFC 9110 has it
            name, value = name.decode("latin-1").lower(), value.decode("latin-1")
            headers[name] = f"{headers[name]},{value}" if name in headers else value
        query = scope["query_string"].decode("latin-1")
        event = event_of_request(self._hooks, scope["path"].removeprefix(WEBHOOKS), headers, query, body, self._now())
        return [] if event is None else [event]


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


async def _read(receive: Receive, headers: dict[bytes, bytes]) -> bytes:
    if int(headers.get(b"content-length", b"0")) > MAX_BODY_BYTES:
        raise _too_large()
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        return body
    pieces, size = [body], len(body)
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Problem(400, "the request ended before its body did")
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > MAX_BODY_BYTES:
            raise _too_large()
    return b"".join(pieces)


def _too_large() -> Problem:
    return Problem(413, f"a request may have {MAX_BODY_BYTES:,} bytes; send the events in several")


async def _respond(
    send: Send, status: int, body: bytes, cors: Sequence[Header], content_type: bytes = b"application/json"
) -> None:
    headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode()), *cors]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

"""One request of an HTTP/2 connection and its response, as an ASGI application sees them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from stepwell.api.http.problem import CONTENT_TYPE, Problem
from stepwell.local.http.connection_limit import NEVER

if TYPE_CHECKING:
    from stepwell.local.http.http2 import Http2Connection

log = logging.getLogger("stepwell.http")

Header = tuple[bytes, bytes]
Message = MutableMapping[str, Any]
App = Callable[[Any, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

_OF_CONNECTIONS = (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
_NO_BODY = (204, 304)


class Malformed(Exception):
    """The request is invalid, and must be answered with `status` instead of by the application."""

    def __init__(self, status: HTTPStatus, why: str, scope: dict[str, Any]) -> None:
        super().__init__(why)
        self.status, self.scope = status, scope


def scope_of(headers: Iterable[Header], scheme: str, server: Any, client: Any, state: dict[str, Any]) -> dict[str, Any]:
    """The ASGI scope of a request. Raises Malformed."""
    pseudo: dict[bytes, bytes] = {}
    fields: list[Header] = []
    for name, value in headers:
        if name[:1] == b":":
            pseudo[name] = value
        else:
            fields.append((name, value))
    method = pseudo.get(b":method", b"")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "2",
        "server": server,
        "client": client,
        "scheme": scheme,
        "method": method.decode("latin-1"),
        "root_path": "",
        "headers": fields,
        "state": state.copy(),
    }
    if method == b"CONNECT":
        raise Malformed(HTTPStatus.METHOD_NOT_ALLOWED, "this server is not a proxy", scope)
    hosts = {value for name, value in fields if name == b"host"} | {pseudo.get(b":authority", b"")} - {b""}
    if len(hosts) != 1:
        raise Malformed(HTTPStatus.BAD_REQUEST, "a request needs exactly one authority", scope)
    fields[:] = [(b"host", hosts.pop()), *(field for field in fields if field[0] != b"host")]
    raw_path, _, query = pseudo.get(b":path", b"").partition(b"#")[0].partition(b"?")
    if raw_path[:1] != b"/" or not raw_path.isascii():
        raise Malformed(HTTPStatus.BAD_REQUEST, "the path of a request must begin with a slash", scope)
    path = raw_path.decode("ascii")
    scope |= {"path": unquote(path) if "%" in path else path, "raw_path": raw_path, "query_string": query}
    return scope


def refuse(status: HTTPStatus, why: str) -> App:
    """An application that answers with this problem."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = Problem(status.value, why).body()
        headers = [(b"content-type", CONTENT_TYPE.encode()), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status.value, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


class Stream:
    """One request. `waiting_since` is the last time at which the client sent or took data; NEVER while the server is
    working."""

    def __init__(self, connection: Http2Connection, stream_id: int, scope: dict[str, Any]) -> None:
        self._connection, self.id, self._scope = connection, stream_id, scope
        self.is_gone = self.is_answered = False
        self.waiting_since = connection.now
        self._body, self._unacknowledged, self._has_more = bytearray(), 0, True
        self._changed = asyncio.Event()
        self._expects_continue = (b"expect", b"100-continue") in scope["headers"]
        self._start: Message | None = None  # the start of the response, until the next message comes
        self._is_started = False

    async def run(self, app: App) -> None:
        try:
            await app(self._scope, self.receive, self.send)
        except Exception:
            log.exception("a request over HTTP/2 failed")
            await self._give_up()
        else:
            if not self.is_answered and not self.is_gone:
                log.error("a request over HTTP/2 was not answered completely")
                await self._give_up()

    async def _give_up(self) -> None:
        if self._is_started:
            from h2.errors import ErrorCodes

            self._connection.reset(self.id, ErrorCodes.INTERNAL_ERROR)
        else:
            self._start = None
            await refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "internal server error; the server's log has the cause")(
                self._scope, self.receive, self.send
            )

    # --- the request -------------------------------------------------------------------------------------------------

    def add_body(self, data: bytes, size: int) -> None:
        """Adds a piece of the body. `size` includes padding."""
        self._body += data
        self._unacknowledged += size
        if self.waiting_since != NEVER:
            self.waiting_since = self._connection.now
        self._changed.set()

    def end_body(self) -> None:
        self._has_more = False
        self.waiting_since = NEVER
        self._changed.set()

    def forget_body(self) -> None:
        self._body.clear()
        self._connection.acknowledge(self.id, self._unacknowledged)
        self._unacknowledged = 0

    def disconnect(self) -> None:
        self.is_gone = True
        self.waiting_since = NEVER
        self._changed.set()

    async def receive(self) -> Message:
        if self._expects_continue and not self._is_started and not self.is_gone:
            self._expects_continue = False
            self._connection.send_headers(self.id, [(b":status", b"100")])
            self._connection.flush()
        while self._has_more and not self._body and not self.is_gone and not self.is_answered:
            self._changed.clear()
            await self._changed.wait()
        if self.is_gone or self.is_answered:
            return {"type": "http.disconnect"}
        body = bytes(self._body)
        self.forget_body()
        self._connection.flush()
        return {"type": "http.request", "body": body, "more_body": self._has_more}

    # --- the answer --------------------------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        if self.is_gone:
            return
        if self._start is None and not self._is_started:
            self._start = message
            return
        body, is_last = message.get("body", b""), not message.get("more_body", False)
        if self._start is not None:
            status, is_empty = self._start["status"], self._scope["method"] == "HEAD"
            is_empty = is_empty or status in _NO_BODY or (is_last and not body)
            headers = [(name.lower(), value) for name, value in self._start.get("headers", ())]
            kept = [header for header in headers if header[0] not in _OF_CONNECTIONS]
            self._start, self._is_started = None, True
            self._connection.send_headers(self.id, [(b":status", b"%d" % status), *kept], is_last=is_empty)
            if is_empty:
                self._finish()
                return
        if not self.is_answered:
            await self._connection.send_data(self, body, is_last=is_last)
            if is_last:
                self._finish()

    def _finish(self) -> None:
        self.is_answered = True
        self._connection.flush()
        self._changed.set()

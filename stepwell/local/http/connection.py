"""A client's connection: HTTP/1.1 by uvicorn, or HTTP/2 if the client begins with the preface.

Adds limits that uvicorn does not have. They are about the size of a request's head, silence within a request, the
number of requests sent ahead, and responses that stay unread. `connection_limit.make_room` closes connections when
there are too many.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from stepwell.local.http.answers import Answering
from stepwell.local.http.connection_limit import NEVER, make_room
from stepwell.local.http.http1_parts import Ending, Flow, Lingering, disconnect, head_without_upgrade, refusal
from stepwell.local.http.preface import Version, version_of

MAX_HEAD_BYTES = 64 * 1024

_PARSED_AT_ONCE = 2048  # bytes; limits how many requests begin at once
_TOO_MANY = refusal(HTTPStatus.SERVICE_UNAVAILABLE, "there are too many connections; try again later", retry=True)
_CHUNK_FRAMING = 32  # bytes around a chunk that do not count
_ANSWERED_EARLY_BYTES = 64 * 1024  # the rest of a longer body is not awaited once the request is answered


class Connection(HttpToolsProtocol):
    silence_s = 60.0  # the longest time for a request's head, between pieces of a body, and of unread responses

    flow: Flow
    _chunked = False
    _length = 0  # bytes of the body that have not come yet
    _head = 0  # bytes of the request that are not body: line, headers, trailers, excess framing of chunks
    _hosts = 0
    _is_reading = True  # a request is incomplete, or the first one is awaited
    _in_body = False  # headers that come then are trailers
    _keeps_alive = True  # once the request is complete
    _expects_continue = False
    _why = ""  # why the request is refused
    _first: bytes | None = b""  # received bytes until the version of HTTP is known
    _ending: Ending | None = None  # set when nothing more is read
    _unread_since = NEVER
    _running: RequestResponseCycle | None = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._arguments = (arguments, named)
        self._rest = bytearray()  # received, but not parsed before earlier requests are answered

    @property
    def deadline(self) -> float:
        """When the client must have sent more, in the loop's time; NEVER while the server is working."""
        if self._ending is not None:
            return self._ending.deadline
        if self.timeout_keep_alive_task is not None:
            return self.timeout_keep_alive_task.when()
        return self._heard_at + self.silence_s if self._is_reading else NEVER

    # --- the transport's callbacks -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = Flow(transport)
        self._heard_at = self.loop.time()  # when the request began, or the last piece of the body came
        make_room(self.connections, self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.pipeline.clear()
        self._rest.clear()
        if self._running is not None:
            disconnect(self._running)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._first is not None:
            data = self._recognise(self._first + data)
        if self._ending is not None:
            self._ending.drop(data)
        elif self.pipeline or self._rest:
            self._hold(data)
        elif len(data) > _PARSED_AT_ONCE:
            self._parse(data)
        else:
            self._feed(data)

    def pause_writing(self) -> None:
        self._unread_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._unread_since = NEVER
        super().resume_writing()

    # --- versions and pieces -----------------------------------------------------------------------------------------

    def _recognise(self, data: bytes) -> bytes:
        """The bytes to be parsed as HTTP/1.1 now; empty while the version is unknown, and for HTTP/2."""
        version = version_of(data)
        if version is Version.HTTP_1:
            self._first = None
            return data
        self._first = data
        if version is Version.HTTP_2:
            from stepwell.local.http.http2 import take_over  # few clients speak it

            self._ending = Ending(self.transport)
            self.connections.discard(self)
            take_over(self.transport, self._arguments, data)
        return b""

    def _parse(self, data: bytes) -> None:
        """Parses data until a request must wait for the responses to earlier ones."""
        at = 0
        while at < len(data) and self._ending is None and not self.transport.is_closing():
            if self.pipeline:
                self._hold(data[at:])
                return
            size = max(_PARSED_AT_ONCE, self._length)
            self._feed(data[at : at + size])
            at += size

    def _feed(self, data: bytes) -> None:
        self._head += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._go_on_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(HTTPStatus.BAD_REQUEST, self._why or "this is not a valid HTTP request")
        if self._head > MAX_HEAD_BYTES and self._ending is None:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the headers of a request exceed 64 KiB")
        if self._is_reading and self._in_body:
            self._heard_at = self.loop.time()

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """Reads the request as if it did not request another protocol (RFC 9110, 7.8). The parser would otherwise treat
        the body as data of that protocol."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "this server is not a proxy")
            return
        head = head_without_upgrade(method, self.url, self.parser.get_http_version(), self.headers)
        self.parser, self._head = httptools.HttpRequestParser(self), 0
        self._feed(head)
        if self._ending is None:
            self._parse(rest)

    def _hold(self, data: bytes) -> None:
        self._rest += data
        self.flow.is_held = True
        self.flow.pause_reading()

    # --- the parser's callbacks --------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._unset_keepalive_if_required()
        self._chunked = self._in_body = self._expects_continue = False
        self._length = self._hosts = 0
        if not self._is_reading:
            self._is_reading, self._heard_at = True, self.loop.time()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_body:
            return
        name = name.lower()
        if name == b"host":
            self._hosts += 1
        elif name == b"content-length":
            self._length = int(value)
        elif name == b"transfer-encoding":
            self._chunked = True
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = self._expects_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # the request is parsed again, without the upgrade
        if self._hosts != 1 and (self._hosts or self.parser.get_http_version() != "1.0"):
            self._why = "a request needs exactly one Host header"
            raise ValueError(self._why)
        super().on_headers_complete()
        self.cycle.__class__ = Answering  # uvicorn has no setting for the class
        self._in_body = True
        if self._chunked or self._expects_continue or self._length > _ANSWERED_EARLY_BYTES:
            # If the response comes before the body is complete, it is the last one of this connection.
            self._keeps_alive, self.cycle.keep_alive = self.cycle.keep_alive, False
            self.cycle.transport = Lingering(self.transport, self.linger)  # type: ignore[assignment]
        else:
            self._keeps_alive = self.cycle.keep_alive

    def on_body(self, body: bytes) -> None:
        size = len(body)
        self._head -= size
        if not self._chunked:
            self._length -= size
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.body += body
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.message_event.set()

    def on_chunk_complete(self) -> None:
        self._head = max(self._head - _CHUNK_FRAMING, 0)

    def on_message_complete(self) -> None:
        if not self._in_body:
            return  # the request is parsed again, without the upgrade
        self._head = 0
        self._is_reading = self._in_body = False
        cycle = self.cycle
        cycle.keep_alive = self._keeps_alive
        cycle.more_body = False
        cycle.message_event.set()

    # --- answers -----------------------------------------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        task = self.loop.create_task(cycle.run_asgi(app))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._rest and not self.pipeline and self._ending is None and not self.transport.is_closing():
            data, self._rest = bytes(self._rest), bytearray()
            self.flow.is_held = False
            self._parse(data)
            if not self._rest and not self.pipeline:
                self.flow.resume_reading()

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        """Answers an unreadable request after earlier ones are answered, then closes the connection."""
        self._ending = Ending(self.transport)
        bad = self.cycle if self.cycle is not None and self.cycle.more_body else None
        if bad is not None:
            disconnect(bad)
            if self.pipeline:
                self.pipeline.popleft()
        last = self.pipeline[0][0] if self.pipeline else self._running
        if last is not None and last is not bad and not last.response_complete:
            last.keep_alive = False
            return
        if bad is None or not bad.response_started:
            self.transport.write(refusal(status, why))
        self.linger()

    def linger(self) -> None:
        """Closes the connection after the client has had time to read the response."""
        if self._running is not None and not self._running.more_body and self._ending is None:
            self.transport.close()
            return
        self._ending = self._ending or Ending(self.transport)
        self._rest.clear()
        self.flow.is_held = False
        self.flow.resume_reading()
        self._ending.linger(self.loop.time())

    # --- slow clients ------------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Closes the connection if the client is too slow. Called regularly."""
        if self._unread_since + self.silence_s < now:
            self.transport.abort()
        elif self.deadline < now:
            self.transport.close()

    def give_way(self) -> None:
        """Closes the connection in favour of a new one, because the client has been silent for longest."""
        if self._ending is None and (self.cycle is None or (self.cycle.more_body and not self.cycle.response_started)):
            self.transport.write(_TOO_MANY)
        self._ending = Ending(self.transport)
        self.transport.close()

"""A client's connection: HTTP/1.1 by uvicorn, or HTTP/2 if the client begins with its preface.

One rule: what uvicorn does not bound is bounded here: how large the head of a request is, how long a client may be
silent in the middle of one, how many requests it may have waiting, how long it may leave answers unread. `room` decides
what happens when there are too many connections.
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

_PARSED_AT_ONCE = 2048  # bytes; so few requests at once begin by what one read brings
_TOO_MANY = refusal(HTTPStatus.SERVICE_UNAVAILABLE, "there are too many connections; try again later", retry=True)
_CHUNK_FRAMING = 32  # bytes around a chunk that cost nothing
_ANSWERED_EARLY_BYTES = 64 * 1024  # of a body that is longer, nothing more is awaited once the request is answered


class Connection(HttpToolsProtocol):
    silence_s = 60.0  # how long the head of a request may take, a body may stand still, and answers may stay unread

    flow: Flow
    _chunked = False
    _length = 0  # of the body, as far as it has not come yet
    _head = 0  # bytes of the request so far that are no body: its line, headers, trailers, what is wrong with chunks
    _hosts = 0
    _is_reading = True  # a request has begun, or the first one is awaited, and is not complete
    _in_body = False  # trailers come then, which are no headers
    _keeps_alive = True  # once the request is complete
    _expects_continue = False
    _why = ""  # the request is refused
    _first: bytes | None = b""  # what has come before it was clear which HTTP it is
    _ending: Ending | None = None  # nothing more is read
    _unread_since = NEVER
    _running: RequestResponseCycle | None = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._arguments = (arguments, named)
        self._rest = bytearray()  # what came, and is parsed once earlier requests are answered

    @property
    def deadline(self) -> float:
        """Until when the client must go on, NEVER if it is the server's turn."""
        if self._ending is not None:
            return self._ending.deadline
        if self.timeout_keep_alive_task is not None:
            return self.timeout_keep_alive_task.when()
        return self._heard_at + self.silence_s if self._is_reading else NEVER

    # --- the transport's callbacks -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = Flow(transport)
        self._heard_at = self.loop.time()  # when the request began, or of its body something came
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

    # --- which HTTP, and how much of it ------------------------------------------------------------------------------

    def _recognise(self, data: bytes) -> bytes:
        """What is to be parsed now, of all that has come."""
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
        """Parse what is there until a request must wait for the answers of others."""
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
            self._refuse(HTTPStatus.BAD_REQUEST, self._why or "this is no HTTP request")
        if self._head > MAX_HEAD_BYTES and self._ending is None:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the headers of a request may have 64 KiB")
        if self._is_reading and self._in_body:
            self._heard_at = self.loop.time()

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """Read the request as if it had not asked to speak another protocol (RFC 9110, 7.8): the parser would take what
        follows its head for that protocol."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "this server is no proxy")
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
            return  # it is read again
        if self._hosts != 1 and (self._hosts or self.parser.get_http_version() != "1.0"):
            self._why = "a request needs one Host header"
            raise ValueError(self._why)
        super().on_headers_complete()
        self.cycle.__class__ = Answering  # uvicorn lets nobody choose it
        self._in_body = True
        if self._chunked or self._expects_continue or self._length > _ANSWERED_EARLY_BYTES:
            # If it is answered before its body is there, the answer is the last of this connection.
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
            return  # it is read again, without its upgrade
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
        """Answer what cannot be read on, once whatever came before it is answered, and close the connection."""
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
        """Close the connection once the client has had time to read the answer."""
        if self._running is not None and not self._running.more_body and self._ending is None:
            self.transport.close()
            return
        self._ending = self._ending or Ending(self.transport)
        self._rest.clear()
        self.flow.is_held = False
        self.flow.resume_reading()
        self._ending.linger(self.loop.time())

    # --- clients that take too long ----------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Called every now and then."""
        if self._unread_since + self.silence_s < now:
            self.transport.abort()
        elif self.deadline < now:
            self.transport.close()

    def give_way(self) -> None:
        """Let another have the place of a client that has said nothing for long, or too little."""
        if self._ending is None and (self.cycle is None or (self.cycle.more_body and not self.cycle.response_started)):
            self.transport.write(_TOO_MANY)
        self._ending = Ending(self.transport)
        self.transport.close()

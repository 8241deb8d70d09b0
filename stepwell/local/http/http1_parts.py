"""Parts of an HTTP/1.1 connection: flow control, the end of a connection, and responses without the application."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from http import HTTPStatus

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from stepwell.api.http.problem import CONTENT_TYPE, Problem
from stepwell.local.http.connection_limit import NEVER

_LINGER_S = 10.0
_LINGER_BYTES = 16 * 1024 * 1024
_NOT_PASSED_ON = (b"upgrade", b"http2-settings")


class Flow(FlowControl):
    """Flow control that does not resume while `is_held`: more was received than can be parsed now."""

    is_held = False

    def resume_reading(self) -> None:
        if self.read_paused and not self.is_held:
            super().resume_reading()


class Lingering:
    """The transport of a request that may be answered before it is complete. `close` is called after the response."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write, self.is_closing, self.close = transport.write, transport.is_closing, close


class Ending:
    """The end of a connection: all further data from the client is dropped."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._dropped = 0
        self.deadline = NEVER  # when the connection is closed, in the loop's time

    def linger(self, now: float) -> None:
        """Gives the client time to read the last response. `now` is the event loop's time.

        If the connection were closed at once, further data from the client would make the system discard the response.
        """
        self.deadline = now + _LINGER_S
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def drop(self, data: bytes) -> None:
        self._dropped += len(data)
        if self._dropped > _LINGER_BYTES:
            self._transport.abort()


def disconnect(cycle: RequestResponseCycle) -> None:
    """Notifies the application that the client of this request is gone."""
    cycle.disconnected = True
    cycle.message_event.set()


def head_without_upgrade(method: bytes, url: bytes, version: str, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The head of a request that requests another protocol, without the headers that request it."""
    lines = [b"%s %s HTTP/%s" % (method, url, version.encode())]
    lines += [b"%s: %s" % header for header in map(_without_upgrade, headers) if header is not None]
    return b"\r\n".join([*lines, b"", b""])


def _without_upgrade(header: tuple[bytes, bytes]) -> tuple[bytes, bytes] | None:
    name, value = header
    if name in _NOT_PASSED_ON:
        return None
    if name != b"connection":
        return header
    kept = [token for token in value.split(b",") if token.strip().lower() not in _NOT_PASSED_ON]
    return (name, b",".join(kept)) if kept else None


def refusal(status: HTTPStatus, why: str, *, retry: bool = False) -> bytes:
    """A complete response without the application, after which the connection must be closed."""
    body = Problem(status.value, why).body()
    retry_after = "retry-after: 1\r\n" if retry else ""
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: {CONTENT_TYPE}\r\n{retry_after}"
    return f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body

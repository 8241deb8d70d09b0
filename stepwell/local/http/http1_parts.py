"""What an HTTP/1.1 connection is made of beside uvicorn's own: answers without an application, and where they go."""

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
    """`is_held`: there is more than can be parsed now, so nothing is to be read."""

    is_held = False

    def resume_reading(self) -> None:
        if self.read_paused and not self.is_held:
            super().resume_reading()


class Lingering:
    """The transport of a request that may be answered before it is complete; `close` is called once it is answered."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write, self.is_closing, self.close = transport.write, transport.is_closing, close


class Ending:
    """The end of a connection: whatever the client still sends is dropped."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._dropped = 0
        self.deadline = NEVER  # when the connection is closed at the latest

    def linger(self, now: float) -> None:
        """The last answer is written: give the client time to read it. If the connection was closed at once, what the
        client still sends would make the system throw the answer away. `now`: the event loop's time."""
        self.deadline = now + _LINGER_S
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def drop(self, data: bytes) -> None:
        self._dropped += len(data)
        if self._dropped > _LINGER_BYTES:
            self._transport.abort()


def disconnect(cycle: RequestResponseCycle) -> None:
    """Tell the application that the client of this request is gone."""
    cycle.disconnected = True
    cycle.message_event.set()


def head_without_upgrade(method: bytes, url: bytes, version: str, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The head of a request that asks to speak another protocol, as it would be if it did not ask."""
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
    """The last answer of a connection."""
    body = Problem(status.value, why).body()
    retry_after = "retry-after: 1\r\n" if retry else ""
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: {CONTENT_TYPE}\r\n{retry_after}"
    return f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body

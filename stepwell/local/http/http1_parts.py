"""What an HTTP/1.1 connection is made of beside uvicorn's own: answers without an application, and where they go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus

from uvicorn.protocols.http.flow_control import FlowControl

from stepwell.api.problem import CONTENT_TYPE, Problem

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


def without_upgrade(header: tuple[bytes, bytes]) -> tuple[bytes, bytes] | None:
    """A header of a request that asks to speak another protocol, as it would be if it did not ask."""
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

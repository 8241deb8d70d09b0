"""Writes HTTP/1.1 responses: the head together with the first piece of the body, as ASGI requires.

Most responses are one piece with one of a few heads, so heads are cached.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from uvicorn.protocols.http.httptools_impl import HEADER_RE, HEADER_VALUE_RE, STATUS_LINE, RequestResponseCycle

Header = tuple[bytes, bytes]


class Answering(RequestResponseCycle):
    """A request of uvicorn, and the response of the application."""

    _start: Any = None  # the message that started the response, until the next one comes

    async def send(self, message: Any) -> None:
        """Sends an ASGI message."""
        if message["type"] == "http.response.start" and not self.response_started:
            self._start = message
            return
        start, self._start = self._start, None
        if start is not None:
            if self._can_answer_at_once() and not message.get("more_body") and not message.get("trailers"):
                body = message.get("body", b"")
                head = _head(start["status"], tuple(map(tuple, start.get("headers", ()))), len(body))
                if head is not None:
                    self._answer(head + body)
                    return
            await super().send(start)
        await super().send(message)

    def answer_json(self, body: bytes) -> bool:
        """Answers 200 with this JSON in one piece. Returns False, and writes nothing, if that is not possible."""
        head = _json_head(len(body)) if self._can_answer_at_once() else None
        if head is None:
            return False
        self._answer(head + body)
        return True

    def _can_answer_at_once(self) -> bool:
        return (
            self.keep_alive
            and not self.disconnected
            and not self.flow.write_paused
            and not self.default_headers
            and self.scope["method"] != "HEAD"
        )

    def _answer(self, content: bytes) -> None:
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self.transport.write(content)
        self.message_event.set()
        self.on_response()


@lru_cache(256)
def _json_head(size: int) -> bytes | None:
    return _head(200, ((b"content-type", b"application/json"), (b"content-length", b"%d" % size)), size)


@lru_cache(1024)
def _head(status: int, headers: tuple[Header, ...], size: int) -> bytes | None:
    """The head of a response with a body of `size` bytes; None if uvicorn must write it."""
    names = {name.lower(): value for name, value in headers}
    is_plain = names.get(b"content-length") == b"%d" % size and status >= 200 and status not in (204, 304)
    if not is_plain or b"connection" in names or b"transfer-encoding" in names:
        return None
    if any(HEADER_RE.search(name) or HEADER_VALUE_RE.search(value) for name, value in headers):
        return None  # uvicorn raises an error
    lines = [name.lower() + b": " + value + b"\r\n" for name, value in headers]
    return b"".join([STATUS_LINE[status], *lines, b"\r\n"])

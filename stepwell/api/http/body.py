"""Reads request bodies within limits of size and memory, and checks them against their JSON Schema."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.requests import Request

from stepwell.api.http.encoding import decoded_body
from stepwell.api.http.problem import Problem
from stepwell.core.events.request import MAX_BODY_BYTES
from stepwell.core.json_input import MAX_LEVELS, BadJson, TooMany, large_integers, parse_json

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_MOST_INCOMPLETE_BYTES = 64 * 1024 * 1024


class BodyMemory:
    """Limits the memory of all incomplete bodies of this process.

    Over the limit, the oldest incomplete body is dropped and the sender gets 503, so slow senders cannot block others.
    """

    def __init__(self, most: int = _MOST_INCOMPLETE_BYTES) -> None:
        self._most, self.used = most, 0
        self._sizes: dict[asyncio.Timeout, int] = {}  # oldest first

    async def collect(self, receive: Receive, first: bytes, most: int) -> bytes:
        """Reads the rest of a body and returns all of it; `first` has been read already. Raises Problem 400, 413 or
        503."""
        try:
            async with asyncio.timeout(None) as holder:
                try:
                    return await self._collect(holder, receive, first, most)
                finally:
                    self._free(holder)
        except TimeoutError:
            message = "the server has too many incomplete requests; try again later, or send smaller requests"
            raise Problem(503, message, {"retry-after": "1"}) from None

    async def _collect(self, holder: asyncio.Timeout, receive: Receive, first: bytes, most: int) -> bytes:
        pieces, size, has_more = [first], len(first), True
        self._take(holder, size)
        while has_more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _incomplete()
            piece = message.get("body", b"")
            pieces.append(piece)
            size += len(piece)
            if size > most:
                raise _too_large(most)
            self._take(holder, len(piece))
            has_more = message.get("more_body", False)
        return b"".join(pieces)

    def _take(self, holder: asyncio.Timeout, size: int) -> None:
        self._sizes[holder] = self._sizes.get(holder, 0) + size
        self.used += size
        while self.used > self._most:
            oldest = next(iter(self._sizes))
            self._free(oldest)
            if oldest is holder:
                raise TimeoutError
            oldest.reschedule(0)

    def _free(self, holder: asyncio.Timeout) -> None:
        self.used -= self._sizes.pop(holder, 0)


INCOMPLETE_BODIES = BodyMemory()


async def read_body(receive: Receive, content_length: str | bytes | None, most: int = MAX_BODY_BYTES) -> bytes:
    """Reads a body of at most `most` bytes.

    Raises Problem 400 if the sender disconnects, 413 if the body is too large, and 503 if too many bodies are
    incomplete.
    """
    if content_length is not None and int(content_length) > most:
        raise _too_large(most)
    message = await receive()
    if message["type"] == "http.disconnect":
        raise _incomplete()
    body: bytes = message.get("body", b"")
    if len(body) > most:
        raise _too_large(most)
    return await INCOMPLETE_BODIES.collect(receive, body, most) if message.get("more_body") else body


async def body_of(request: Request, most: int = MAX_BODY_BYTES) -> bytes:
    """Reads and decompresses the body of a request. Raises the same as `read_body`, and Problem 415."""
    body = await read_body(request.receive, request.headers.get("content-length"), most)
    return decoded_body(request.headers, body, most)


def _incomplete() -> Problem:
    return Problem(400, "the request ended before the body was complete")


def _too_large(most: int) -> Problem:
    return Problem(413, f"the request has more than {most:,} bytes; send several requests")


def read_object(content: bytes, shape: dict[str, Any], levels: int = MAX_LEVELS) -> dict[str, Any]:
    """Parses a JSON object and checks it against `shape`, a JSON Schema. An empty body is `{}`.

    Raises Problem 400 with the place of every error.
    """
    body = json_body(content, levels) if content.strip() else {}
    check_object(body, shape)
    assert isinstance(body, dict)
    return body


def json_body(content: bytes, levels: int = MAX_LEVELS) -> Any:
    """Parses a JSON value. Raises Problem 400, or 413 for too many values or levels."""
    try:
        return parse_json(content, levels)
    except TooMany as error:
        raise Problem(413, f"the body is too complex: {error}") from None
    except BadJson as error:
        raise Problem(400, f"the body is not JSON: {error}") from None


def check_integers(content: bytes) -> None:
    """Raises Problem 400 for integers that do not fit into 64 bits, with the place of each."""
    if pointers := large_integers(content):
        raise wrong(
            *((pointer, "the number does not fit into 64 bits; send it as a text in quotes") for pointer in pointers)
        )


def check_object(body: Any, shape: dict[str, Any]) -> None:
    """Checks a body against a JSON Schema. Raises Problem 400 with the place of every error."""
    from stepwell.event_types.validation import errors_of  # imported late: most requests have no body

    if errors := errors_of(body, shape):
        raise wrong(*((error.pointer, error.message) for error in errors))


def wrong(*errors: tuple[str, str], status: int = 400) -> Problem:
    """The Problem for errors in a body, each a JSON pointer and a message."""
    detail = "; ".join(f"{pointer[1:] or 'the body'}: {message}" for pointer, message in errors)
    return Problem(status, detail, errors=[{"pointer": pointer, "message": message} for pointer, message in errors])


def flag(request: Request, name: str) -> bool:
    """A boolean query parameter: `true` or `false`; false if it is not given. Raises Problem 400."""
    text = request.query_params.get(name, "false")
    if text not in ("true", "false"):
        raise Problem(400, f"{name}={text} is not a boolean; write true or false")
    return text == "true"

"""The body of a request, as long as it is not too long, and of the shape that the API's document says; and switches in
its query."""

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
    """Bounds what all incomplete bodies of this process hold in memory. The body that has taken longest gives way:
    its sender is asked to try again, so whoever sends slowly cannot keep out those who do not."""

    def __init__(self, most: int = _MOST_INCOMPLETE_BYTES) -> None:
        self._most, self.used = most, 0
        self._sizes: dict[asyncio.Timeout, int] = {}  # the oldest first

    async def collect(self, receive: Receive, first: bytes, most: int) -> bytes:
        """The whole body, of which `first` has come already. Raises Problem 400, 413 or 503."""
        try:
            async with asyncio.timeout(None) as holder:
                try:
                    return await self._collect(holder, receive, first, most)
                finally:
                    self._free(holder)
        except TimeoutError:
            why = "the server holds as many incomplete requests as it can; send it again later, or in smaller parts"
            raise Problem(503, why, {"retry-after": "1"}) from None

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
    """Raises Problem 400 if the sender went away before the end, 413, and 503 if too many others send too slowly."""
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
    """What was sent, decompressed. Raises as `read_body`, and Problem 415."""
    body = await read_body(request.receive, request.headers.get("content-length"), most)
    return decoded_body(request.headers, body, most)


def _incomplete() -> Problem:
    return Problem(400, "the request ended before its body did")


def _too_large(most: int) -> Problem:
    return Problem(413, f"a request may have {most:,} bytes; send it in several")


def read_object(content: bytes, shape: dict[str, Any], levels: int = MAX_LEVELS) -> dict[str, Any]:
    """A JSON object of this shape, a JSON Schema; nothing is `{}`. Raises Problem 400 with the place of every error."""
    body = json_body(content, levels) if content.strip() else {}
    check_object(body, shape)
    assert isinstance(body, dict)
    return body


def json_body(content: bytes, levels: int = MAX_LEVELS) -> Any:
    """A JSON value. Raises Problem 400."""
    try:
        return parse_json(content, levels)
    except TooMany as error:
        raise Problem(413, f"the body is too much: {error}") from None
    except BadJson as error:
        raise Problem(400, f"the body is not JSON: {error}") from None


def check_integers(content: bytes) -> None:
    """Raises Problem 400 for integers that do not fit into 64 bits, with the place of each."""
    if pointers := large_integers(content):
        raise wrong(*((pointer, "the number does not fit into 64 bits; send it as a text") for pointer in pointers))


def check_object(body: Any, shape: dict[str, Any]) -> None:
    """Raises Problem 400 with the place of every error."""
    from stepwell.event_types.validation import errors_of  # most requests have no body

    if errors := errors_of(body, shape):
        raise wrong(*((error.pointer, error.message) for error in errors))


def wrong(*errors: tuple[str, str], status: int = 400) -> Problem:
    """Of pointers into the body, and messages."""
    detail = "; ".join(f"{pointer[1:] or 'the body'}: {message}" for pointer, message in errors)
    return Problem(status, detail, errors=[{"pointer": pointer, "message": message} for pointer, message in errors])


def flag(request: Request, name: str) -> bool:
    """A parameter of the query that is `true`, or `false` as if it were not there. Raises Problem 400."""
    text = request.query_params.get(name, "false")
    if text not in ("true", "false"):
        raise Problem(400, f"{name}={text} is neither true nor false")
    return text == "true"

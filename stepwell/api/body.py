"""The body of a request: as long as it is not too long, and of the shape that the API's document says."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request

from stepwell.api.problem import Problem
from stepwell.core.events import MAX_BODY_BYTES


async def body_of(request: Request, most: int = MAX_BODY_BYTES) -> bytes:
    """Raises Problem 413."""
    pieces, size = [], 0
    async for piece in request.stream():
        pieces.append(piece)
        size += len(piece)
        if size > most:
            raise Problem(413, f"a request may have {most:,} bytes; send it in several")
    return b"".join(pieces)


def read_object(content: bytes, shape: dict[str, Any]) -> dict[str, Any]:
    """A JSON object of this shape, a JSON Schema; nothing is `{}`. Raises Problem 400 with the place of every error."""
    try:
        body = orjson.loads(content) if content.strip() else {}
    except orjson.JSONDecodeError as error:
        raise Problem(400, f"the body is not JSON: {error}") from None
    check_object(body, shape)
    assert isinstance(body, dict)
    return body


def check_object(body: Any, shape: dict[str, Any]) -> None:
    """Raises Problem 400 with the place of every error."""
    from stepwell.event_types.validation import errors_of  # most requests have no body

    if errors := errors_of(body, shape):
        raise wrong(*((its.pointer, its.message) for its in errors))


def wrong(*errors: tuple[str, str], status: int = 400) -> Problem:
    """Of pointers into the body, and messages."""
    detail = "; ".join(f"{pointer[1:] or 'the body'}: {message}" for pointer, message in errors)
    return Problem(status, detail, errors=[{"pointer": pointer, "message": message} for pointer, message in errors])

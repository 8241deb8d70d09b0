"""The body of a request, as long as it is not too long."""

from __future__ import annotations

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

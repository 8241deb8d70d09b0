"""Lists of the API: what a page may ask for, and what it answers; and what is not there.

One rule: a cursor is opaque, and whatever else is handed in is refused.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any

from starlette.requests import Request

from stepwell.api.http.problem import Problem
from stepwell.api.openapi import Parameter
from stepwell.reader import Page

MAX_LIMIT = 1000
PAGING = (
    Parameter("after", "the `next` of the page before"),
    Parameter(
        "limit",
        f"how many, 1 to {MAX_LIMIT:,}; default 50",
        {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": 50},
    ),
)
USER = Parameter("user", "any id of the event's user: external_id, id, email or phone")


def found(thing: Any, kind: str, its_id: str) -> Any:
    """The thing; Problem 404 for None."""
    if thing is None:
        raise Problem(404, f"there is no {kind} {its_id!r}")
    return thing


def paging(request: Request) -> dict[str, Any]:
    """The arguments `before` and `limit` of a read. Raises Problem 400."""
    after = request.query_params.get("after")
    return {"before": None if after is None else _position(after), "limit": limit_of(request)}


def alone(request: Request, name: str, *others: str) -> str | None:
    """A parameter that says which one is meant, so that only these others may stand beside it; None if it is not there.
    Raises Problem 400."""
    text = request.query_params.get(name)
    if text is not None and (more := [other for other in request.query_params if other not in (name, *others)]):
        raise Problem(400, f"{name} says which one is meant; leave out {', '.join(more)}")
    return text


def limit_of(request: Request) -> int:
    """Raises Problem 400."""
    limit = request.query_params.get("limit", "50")
    if not re.fullmatch("[0-9]{1,9}", limit) or not 1 <= int(limit) <= MAX_LIMIT:
        raise Problem(400, f"limit={limit} is not a number from 1 to {MAX_LIMIT}")
    return int(limit)


def page(page: Page[Any], view: Callable[[Any], Any]) -> dict[str, Any]:
    """A list as the API answers it."""
    cursor = None if page.next is None else base64.urlsafe_b64encode(f"s{page.next}".encode()).decode().rstrip("=")
    return {"data": [view(item) for item in page.items], "next": cursor}


def _position(cursor: str) -> int:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        if text[:1] != "s" or not text[1:].isdigit() or len(text) > 19:
            raise ValueError(text)
        return int(text[1:])
    except ValueError:
        raise Problem(400, f"after={cursor} is not the `next` of a list") from None

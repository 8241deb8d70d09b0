"""Pages of lists: the query parameters, the cursor, and the response. Also the 404 for a missing item.

A cursor is opaque: `after` must be the `next` of an earlier page.
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
    Parameter("after", "The `next` of the previous page"),
    Parameter(
        "limit",
        f"The number of items, 1 to {MAX_LIMIT:,}; default: 50",
        {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": 50},
    ),
)
USER = Parameter("user", "Any id of the event's user: external_id, id, email or phone")


def found(item: Any, kind: str, item_id: str) -> Any:
    """Returns the item. Raises Problem 404 if it is None."""
    if item is None:
        raise Problem(404, f"there is no {kind} {item_id!r}")
    return item


def paging(request: Request) -> dict[str, Any]:
    """The arguments `before` and `limit` of a reader, from the query. Raises Problem 400."""
    after = request.query_params.get("after")
    return {"before": None if after is None else _position(after), "limit": limit_of(request)}


def exclusive_parameter(request: Request, name: str, *allowed: str) -> str | None:
    """A query parameter that selects a single item; None if it is not given.

    Only the `allowed` parameters can be combined with it. Raises Problem 400 for any other.
    """
    text = request.query_params.get(name)
    if text is not None and (more := [other for other in request.query_params if other not in (name, *allowed)]):
        raise Problem(400, f"{name} cannot be combined with {', '.join(more)}; leave out one or the other")
    return text


def limit_of(request: Request) -> int:
    """The parameter `limit`. Raises Problem 400."""
    limit = request.query_params.get("limit", "50")
    if not re.fullmatch("[0-9]{1,9}", limit) or not 1 <= int(limit) <= MAX_LIMIT:
        raise Problem(400, f"limit={limit} is not a number from 1 to {MAX_LIMIT}")
    return int(limit)


def page(page: Page[Any], view: Callable[[Any], Any]) -> dict[str, Any]:
    """A page of a list, as the API answers it."""
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

"""What an error looks like: an RFC 9457 problem document, with `status`, `message` and `error` beside its own names."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson

CONTENT_TYPE = "application/problem+json"


class Problem(Exception):
    """A request that is refused. `headers` are those of the answer; `extra` members say more, such as `errors` with
    the place of each."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers, self.extra = status, detail, headers or {}, extra

    def body(self) -> bytes:
        title = HTTPStatus(self.status).phrase
        return orjson.dumps(
            {
                "type": "about:blank",
                "title": title,
                "status": self.status,
                "detail": self.detail,
                "message": self.detail,
                "error": title.lower().replace(" ", "_"),
                **self.extra,
            }
        )

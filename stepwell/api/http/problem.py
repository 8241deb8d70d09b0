"""Error responses: RFC 9457 problem documents, with the additional fields `message` and `error`."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson

CONTENT_TYPE = "application/problem+json"


class Problem(Exception):
    """An error response. `headers` are headers of the response, `extra` further fields such as `errors`."""

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

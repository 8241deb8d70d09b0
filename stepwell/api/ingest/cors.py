"""The headers that let pages of any site send events: keys of scope `send` are made to sit in browsers."""

from __future__ import annotations

import re
from collections.abc import Mapping

CORS: Mapping[str, str] = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "POST",
    "access-control-allow-headers": "authorization, content-type, x-inngest-sdk, x-inngest-event-id-seed",
    "access-control-max-age": "86400",
}
_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~ \t,-]{1,2000}")  # tokens (RFC 9110, 5.6.2) with commas between them


def preflight(asked: str | None) -> Mapping[str, str]:
    """The answer to a page that asks whether it may send these headers. It may send any: a header gives no right that
    the key does not give."""
    if asked is None or not _NAMES.fullmatch(asked):
        return CORS
    return {**CORS, "access-control-allow-headers": asked, "vary": "access-control-request-headers"}

"""CORS headers that let web pages of any site send events. Keys with the scope `send` may be public."""

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


def preflight(wanted: str | None) -> Mapping[str, str]:
    """The response headers of a preflight request. `wanted` are the headers that the page wants to send.

    All headers are allowed, because a header cannot give more rights than the key.
    """
    if wanted is None or not _NAMES.fullmatch(wanted):
        return CORS
    return {**CORS, "access-control-allow-headers": wanted, "vary": "access-control-request-headers"}

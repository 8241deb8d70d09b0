"""The headers that let pages of any site send events: keys of scope `send` are made to sit in browsers."""

from __future__ import annotations

CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "POST",
    "access-control-allow-headers": "authorization, content-type, x-inngest-sdk, x-inngest-event-id-seed",
    "access-control-max-age": "86400",
}

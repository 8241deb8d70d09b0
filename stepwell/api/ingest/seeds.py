"""Derives event ids from a seed in the request, so that a repeated request does not create the events twice.

Clients of Inngest's event API send `x-inngest-event-id-seed: <milliseconds>,<base64 of 10 bytes>` with every request,
and the same value when they retry. As in Inngest, a header of any other form is ignored.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

HEADER = "x-inngest-event-id-seed"
_SEED = re.compile(r"(\d{1,15}),([A-Za-z0-9+/]{14}==)")
_BITS = 80


def seeded_ids(header: str | None) -> Iterator[str] | None:
    """Yields the ids of a request's events: 32 hex digits that begin with the seed's time. None without a seed."""
    match = _SEED.fullmatch(header.strip()) if header else None
    if match is None or int(match[1]) >= 1 << 48:
        return None
    try:
        entropy = int.from_bytes(base64.b64decode(match[2], validate=True))
    except binascii.Error:
        return None
    return _ids(int(match[1]), entropy)


def _ids(ms: int, entropy: int) -> Iterator[str]:
    while True:
        yield f"{ms:012x}{entropy:020x}"
        entropy = (entropy + 1) % (1 << _BITS)

"""Ids of events from a seed that their sender chose, so that a request that is sent again makes no second events.

Clients of Inngest's event API send `x-inngest-event-id-seed: <milliseconds>,<base64 of 10 bytes>` with every request,
and the same again when they retry. One rule: a header that is not of that form is as good as none, as it is there.
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
    """The ids of a request's events, one after the other: 32 hex digits that begin with the seed's time, as others do
    with theirs. None without a seed."""
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

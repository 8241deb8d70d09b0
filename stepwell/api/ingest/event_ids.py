"""Ids of events whose senders gave them none."""

from __future__ import annotations

import os
import time
from collections import deque

_BYTES = 10
_AT_ONCE = 256  # the system is asked once for as many ids: each time costs as much as several ids

_random: deque[str] = deque()  # in hex digits


def new_event_id() -> str:
    """32 hex digits: the time in ms, so that ids are ordered, and 80 bits of the system's randomness, since who could
    guess an id could take it first."""
    try:
        secret = _random.popleft()
    except IndexError:
        more = os.urandom(_BYTES * _AT_ONCE).hex()
        _random.extend([more[i : i + 2 * _BYTES] for i in range(2 * _BYTES, len(more), 2 * _BYTES)])
        secret = more[: 2 * _BYTES]
    return f"{time.time_ns() // 1_000_000:012x}{secret}"


def forget() -> None:
    """Ask the system anew for the next id."""
    _random.clear()


os.register_at_fork(after_in_child=forget)  # no two processes may have the same

"""Ids for events that are sent without one."""

from __future__ import annotations

import os
import time
from collections import deque

_BYTES = 10
_AT_ONCE = 256  # random bytes are read for many ids at once, because a call of os.urandom is slow

_random: deque[str] = deque()  # in hex digits


def new_event_id() -> str:
    """A new id of 32 hex digits: the time in ms, so that ids are ordered, and 80 random bits.

    The random bits come from the system, so that nobody can guess an id and use it first.
    """
    try:
        secret = _random.popleft()
    except IndexError:
        more = os.urandom(_BYTES * _AT_ONCE).hex()
        _random.extend([more[i : i + 2 * _BYTES] for i in range(2 * _BYTES, len(more), 2 * _BYTES)])
        secret = more[: 2 * _BYTES]
    return f"{time.time_ns() // 1_000_000:012x}{secret}"


def forget() -> None:
    """Drops the random bytes that were read in advance."""
    _random.clear()


os.register_at_fork(after_in_child=forget)  # otherwise a child process would create the same ids

"""Positions: numbers that order accepted events, although many Lambdas accept events at the same time.

A position is `ms << 18 | number`. Within a process positions always grow; between processes the clocks decide. The
first number in a millisecond is random, so that two processes rarely create the same position.
"""

from __future__ import annotations

import secrets
import threading
from datetime import UTC, datetime

_BITS = 18
_lock = threading.Lock()
_last = 0


def next_position(now: int) -> int:
    """A new position at `now` (ms) or later, after all earlier positions of this process."""
    global _last
    with _lock:
        _last = max(_last + 1, (now << _BITS) | (secrets.randbits(_BITS - 8) << 7))
        return _last


def reset() -> None:
    """Forgets the last position, to imitate a new process in tests."""
    global _last
    with _lock:
        _last = 0


def newest_position(now: int) -> int:
    """A position that is not below the position of any event accepted before `now` (ms)."""
    with _lock:
        return max(_last, now << _BITS)


def ms_of(position: int) -> int:
    """The time of a position, in ms since the epoch."""
    return position >> _BITS


def first_of(ms: int) -> int:
    """The smallest position of a millisecond."""
    return ms << _BITS


def month_of(position: int) -> str:
    """The month of a position, such as `2026-11`, by which lists are partitioned."""
    return datetime.fromtimestamp(ms_of(position) / 1000, UTC).strftime("%Y-%m")

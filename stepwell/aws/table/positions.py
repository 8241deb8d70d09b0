"""The order in which events are accepted, where many Lambdas accept them: time, then a number.

A position is `ms << 18 | number`. Within one process positions only grow; between processes the clock decides, and
the random first number keeps two processes from making the same position in the same millisecond.
"""

from __future__ import annotations

import secrets
import threading
from datetime import UTC, datetime

_BITS = 18
_lock = threading.Lock()
_last = 0


def next_position(now: int) -> int:
    """A position after all that this process has given, at `now` (ms) or later."""
    global _last
    with _lock:
        _last = max(_last + 1, (now << _BITS) | (secrets.randbits(_BITS - 8) << 7))
        return _last


def reset() -> None:
    """Forget what was given, as a new process would."""
    global _last
    with _lock:
        _last = 0


def newest_position(now: int) -> int:
    """A position behind every event that was accepted before this moment."""
    with _lock:
        return max(_last, now << _BITS)


def ms_of(position: int) -> int:
    """The time of a position, in ms since the epoch."""
    return position >> _BITS


def first_of(ms: int) -> int:
    """The smallest position of a millisecond."""
    return ms << _BITS


def month_of(position: int) -> str:
    """`2026-11`, by which lists are cut."""
    return datetime.fromtimestamp(ms_of(position) / 1000, UTC).strftime("%Y-%m")

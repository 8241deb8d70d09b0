"""How many connections a server has, and which of them gives way when there are too many: the one whose client has kept
it waiting for longest. So neither idle clients nor slow ones keep others out."""

from __future__ import annotations

import heapq
import math
import resource
from typing import Any, Protocol

_MOST = 4096
_RESERVED = 256  # descriptors for the database, steps, and whatever else
_GIVE_WAY_AT_ONCE = 16  # looking for them costs a look at every connection
NEVER = math.inf


class Client(Protocol):
    """A connection."""

    @property
    def deadline(self) -> float:
        """Until when its client must go on, in the loop's time; NEVER if it is not its turn."""

    def give_way(self) -> None:
        """Let another have its place."""

    def sweep(self, now: float) -> None:
        """Close it if its client takes too long."""


def raise_file_limit() -> None:
    """Let this process have as many open files as it is allowed to have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):  # macOS allows less than it says
            pass


def most_connections() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft < 0 else max(16, min(_MOST, (soft - _RESERVED) // 2))


def make_room(connections: set[Any], newcomer: Client) -> None:
    """Called when there is one more. If nobody can give way, the newcomer does."""
    if len(connections) <= most_connections():
        return
    waiting = [connection for connection in connections if connection.deadline != NEVER and connection is not newcomer]
    for item in heapq.nsmallest(_GIVE_WAY_AT_ONCE, waiting, key=lambda value: value.deadline) or [newcomer]:
        connections.discard(item)
        item.give_way()

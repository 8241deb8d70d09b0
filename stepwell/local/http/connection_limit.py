"""Limits the number of connections, by closing those whose clients have been silent for longest.

So idle and slow clients cannot keep others out.
"""

from __future__ import annotations

import heapq
import math
import resource
from typing import Any, Protocol

_MOST = 4096
_RESERVED = 256  # descriptors for the database, steps, and other files
_GIVE_WAY_AT_ONCE = 16  # connections closed at a time: to find them, all connections are compared
NEVER = math.inf


class Client(Protocol):
    """A connection that may be closed to make room for another."""

    @property
    def deadline(self) -> float:
        """When the client must have sent more, in the loop's time; NEVER while the server is working."""

    def give_way(self) -> None:
        """Closes the connection to make room for another."""

    def sweep(self, now: float) -> None:
        """Closes the connection if the client is too slow."""


def raise_file_limit() -> None:
    """Raises this process's limit of open files to the highest allowed value."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):  # macOS may refuse its own hard limit
            pass


def most_connections() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft < 0 else max(16, min(_MOST, (soft - _RESERVED) // 2))


def make_room(connections: set[Any], newcomer: Client) -> None:
    """Closes connections if there are too many, including the new one; the new one if all others are in use."""
    if len(connections) <= most_connections():
        return
    waiting = [connection for connection in connections if connection.deadline != NEVER and connection is not newcomer]
    for item in heapq.nsmallest(_GIVE_WAY_AT_ONCE, waiting, key=lambda value: value.deadline) or [newcomer]:
        connections.discard(item)
        item.give_way()

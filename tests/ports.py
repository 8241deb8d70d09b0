"""Ports that a test chooses before its server listens there, or that must be the same after a restart."""

from __future__ import annotations

import random
import socket

# Below the ports of outgoing connections (Linux: from 32768; macOS and Windows: from 49152). One of those may be taken
# by a connection of another test before the server listens, or while the server is dead.
_FIRST, _LAST = 10_000, 30_000
_numbers = random.SystemRandom()  # tests run in several processes


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    while True:
        port = _numbers.randint(_FIRST, _LAST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port

"""Starts processes that communicate over a socket pair."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TypeVar

from stepwell.local.runners.process import Ended, Receive

_SEND_BYTES = 1024 * 1024  # send buffer of a socket, large enough that a message rarely blocks the sender

AnyProcess = TypeVar("AnyProcess")
Launch = Callable[[int, Receive, Ended], AnyProcess]
"""Starts a process. The number is the descriptor of the process's end of the socket."""


def launch_with_channel(
    launch: Launch[AnyProcess],
    receive: Receive,
    ended: Ended,
    kind: socket.SocketKind = socket.SOCK_STREAM,
    greeting: bytes = b"",
) -> tuple[socket.socket, AnyProcess]:
    """Starts a process with a socket. Returns the own, non-blocking end and the process. Raises OSError.

    The process reads `greeting` first; it must fit into a new socket's buffer."""
    own_end, process_end = socket.socketpair(socket.AF_UNIX, kind)
    for end in (own_end, process_end):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)  # the system may allow less
    own_end.setblocking(False)
    try:
        if greeting:
            own_end.send(greeting)
        return own_end, launch(process_end.fileno(), receive, ended)
    except OSError:
        own_end.close()
        raise
    finally:
        process_end.close()

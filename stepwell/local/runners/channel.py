"""A process that is started with one end of a socket, whose other end stays here."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TypeVar

from stepwell.local.runners.process import Ended, Receive

_SEND_BYTES = 1024 * 1024  # that a socket takes at once, so that neither side waits for the other within a message

AnyProcess = TypeVar("AnyProcess")
Launch = Callable[[int, Receive, Ended], AnyProcess]
"""Starts a process; the number is that of its end of the socket."""


def launch_with_channel(
    launch: Launch[AnyProcess],
    receive: Receive,
    ended: Ended,
    kind: socket.SocketKind = socket.SOCK_STREAM,
    greeting: bytes = b"",
) -> tuple[socket.socket, AnyProcess]:
    """The end that stays here, which does not block, and the process. `greeting`: what the process reads first; a new
    socket must take it at once. Raises OSError if it cannot be started."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)  # the system may allow less
    ours.setblocking(False)
    try:
        if greeting:
            ours.send(greeting)
        return ours, launch(theirs.fileno(), receive, ended)
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()

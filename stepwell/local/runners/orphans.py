"""Steps that still run although their server was killed, and daemons that left their group.

One rule: who belongs to a dead server is read from the TMPDIR it was started with, never from a number on disk that
another process may have by now; and a process is held by its pidfd while it is looked at.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

_ROUNDS = 10  # a process may fork while it is looked for
_DEATH_S = 2.0


def kill_orphans(roots: Iterable[str]) -> None:
    """Kill every process whose TMPDIR is in one of these folders, and wait until it is gone. Linux only: elsewhere
    nothing is known about them."""
    marks = tuple(os.fsencode(f"TMPDIR={root}/") for root in roots)
    if not marks or not hasattr(os, "pidfd_open"):
        return
    for _ in range(_ROUNDS):
        with contextlib.ExitStack() as held:
            killed = []
            for pidfd in _started_with(marks):
                held.callback(os.close, pidfd)
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    killed.append(pidfd)
            if not killed:
                return
            _wait(killed)


def _started_with(marks: tuple[bytes, ...]) -> Iterator[int]:
    """Descriptors of the processes whose first environment has one of these variables; the caller closes them."""
    with os.scandir("/proc") as entries:
        numbers = [int(entry.name) for entry in entries if entry.name.isdigit()]
    for number in numbers:
        if number == os.getpid():
            continue
        try:
            pidfd = os.pidfd_open(number)
        except OSError:
            continue
        if any(variable.startswith(marks) for variable in _environment(number)):
            yield pidfd
        else:
            os.close(pidfd)


def _environment(number: int) -> list[bytes]:
    """Nothing for a zombie, and for a process of another user."""
    try:
        return Path(f"/proc/{number}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _wait(pidfds: list[int]) -> None:
    """Until these have ended; a process that the kernel cannot end now is not waited for."""
    poll = select.poll()
    for pidfd in pidfds:
        poll.register(pidfd, select.POLLIN)
    left, deadline = len(pidfds), time.monotonic() + _DEATH_S
    while left and (rest := deadline - time.monotonic()) > 0:
        for pidfd, _ in poll.poll(rest * 1000):
            poll.unregister(pidfd)
            left -= 1

"""Kills processes of steps whose server was killed, and daemons that left their process group.

A process belongs to a dead server if it was started with that server's TMPDIR. Stored process ids are not used, since
another process may have the same id by now. A pidfd holds each process while it is checked.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

_ROUNDS = 10  # processes may fork during the search
_DEATH_S = 2.0


def kill_orphans(roots: Iterable[str]) -> None:
    """Kills every process whose TMPDIR is in one of these folders, and waits until it is gone. Linux only: does nothing
    elsewhere."""
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
    """Pidfds of the processes whose initial environment has one of these variables. The caller closes them."""
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
    """The variables of a process; empty for a zombie, or a process of another user."""
    try:
        return Path(f"/proc/{number}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _wait(pidfds: list[int]) -> None:
    """Waits until these processes have ended, for at most two seconds: the kernel cannot always end a process."""
    poll = select.poll()
    for pidfd in pidfds:
        poll.register(pidfd, select.POLLIN)
    left, deadline = len(pidfds), time.monotonic() + _DEATH_S
    while left and (rest := deadline - time.monotonic()) > 0:
        for pidfd, _ in poll.poll(rest * 1000):
            poll.unregister(pidfd)
            left -= 1

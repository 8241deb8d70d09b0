"""Process settings of Linux; most have no effect elsewhere. See prctl(2) and sched(7)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path

_SET_DUMPABLE = 4
_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> bool:
    """Becomes the parent of orphaned descendants of this process. Returns False if the system does not support it."""
    return _prctl(_SET_CHILD_SUBREAPER, 1)


def hide_memory() -> bool:
    """Prevents core files, and access by processes of the same user to this one's memory and environment.

    That covers ptrace, /proc/PID/mem and /proc/PID/environ; root can still trace. Returns False if not supported."""
    return _prctl(_SET_DUMPABLE, 0)


def lower_priority(nice: int) -> None:
    """Yields CPU time to other processes when CPUs are scarce, also to those of other sessions.

    Linux often groups processes by session (autogroup). A nice value then counts within the session only. The session
    has a nice value too, which is set here if this process leads the session.
    https://man7.org/linux/man-pages/man7/sched.7.html. After `hide_memory`, only root may set it."""
    os.nice(nice)
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(nice))


def _prctl(option: int, value: int) -> bool:
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = [ctypes.c_ulong(number) for number in (value, 0, 0, 0)]
    return int(libc.prctl(option, *arguments)) == 0

"""What a process asks of Linux for itself; elsewhere hardly anything of it exists. See prctl(2) and sched(7)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path

_SET_DUMPABLE = 4
_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> bool:
    """Become the parent of orphans among the processes that come of this one. False if that cannot be."""
    return _prctl(_SET_CHILD_SUBREAPER, 1)


def hide_memory() -> bool:
    """Keep processes of the same user from reading this one's memory and environment (ptrace, /proc/PID/mem and
    /proc/PID/environ), and from core files. Who may trace everything (root) still can. False if that cannot be."""
    return _prctl(_SET_DUMPABLE, 0)


def go_behind_others(nice: int) -> None:
    """Let others go first where processors are scarce, also those of other sessions: where Linux groups processes by
    session (autogroup, often the default), a process's own nice value counts within its session only, and the group has
    one of its own, which is set if the session is this process's.
    https://man7.org/linux/man-pages/man7/sched.7.html. After `hide_memory`, only root may do that."""
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

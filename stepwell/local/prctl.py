"""What a process asks of Linux for itself; elsewhere nothing of it exists. See prctl(2)."""

from __future__ import annotations

import ctypes
import sys

_SET_DUMPABLE = 4
_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> bool:
    """Become the parent of orphans among the processes that come of this one. False if that cannot be."""
    return _prctl(_SET_CHILD_SUBREAPER, 1)


def hide_memory() -> bool:
    """Keep processes of the same user from reading this one's memory and environment (ptrace, /proc/PID/mem and
    /proc/PID/environ), and from core files. Who may trace everything (root) still can. False if that cannot be."""
    return _prctl(_SET_DUMPABLE, 0)


def _prctl(option: int, value: int) -> bool:
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = [ctypes.c_ulong(number) for number in (value, 0, 0, 0)]
    return int(libc.prctl(option, *arguments)) == 0

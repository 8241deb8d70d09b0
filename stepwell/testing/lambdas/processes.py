"""Ending processes, with all that they have started: a sandbox leaves nothing behind.

One rule: a process belongs to whoever put the mark into its environment; it may be in a session of its own by now.
One that was forked does not show the mark, so the leader and its group count too.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path


def kill_all_with(mark: str, leader: int) -> None:
    """Kill the leader and its group, and, where there is a /proc, all with this `NAME=value` in their environment."""
    _kill(leader)
    _kill(-leader)
    if not Path("/proc/self/environ").exists():
        return
    while found := [pid for pid in _processes() if _has(pid, mark.encode())]:  # again: what they started meanwhile
        for pid in found:
            _kill(pid)


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 (half the time)


def _has(pid: int, mark: bytes) -> bool:
    """Not of a process that is dead: its environment is empty."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123 (as above)
            return mark in file.read().split(b"\0")
    except OSError:
        return False


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass

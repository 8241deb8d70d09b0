"""Kills the processes of a sandbox, including all that they have started.

A process belongs to the sandbox if it has the sandbox's mark in the environment, even in another session. A forked
process does not show the mark in /proc, so the leader and its group are killed too.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path


def kill_all_with(mark: str, leader: int) -> None:
    """Kills the leader, its group, and, where /proc exists, all processes with this `NAME=value` in the environment."""
    _kill(leader)
    _kill(-leader)
    if not Path("/proc/self/environ").exists():
        return
    while found := [pid for pid in _processes() if _has(pid, mark.encode())]:  # repeated: they may start more processes
        for pid in found:
            _kill(pid)


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 (twice as fast)


def _has(pid: int, mark: bytes) -> bool:
    """Whether a process has the mark. The environment of a dead process is empty."""
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

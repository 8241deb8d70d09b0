"""Kills the processes of a sandbox, including all that they have started.

A process belongs to the sandbox if it has the sandbox's mark in the environment, even in another session, or if it was
started by one that does. A forked process does not show the mark in /proc, so the leader and its group are killed too.
"""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from pathlib import Path


def kill_all_with(mark: str, leader: int) -> None:
    """Kills the leader, its group, and, where /proc exists, all processes with this `NAME=value` in the environment,
    and all that these have started."""
    if not Path("/proc/self/environ").exists():
        _kill(leader)
        _kill(-leader)
        return
    started = _started_by({leader, *_marked(mark)})  # before their parents are dead
    _kill(leader)
    _kill(-leader)
    for pid in started:
        _kill(pid)
    while found := _marked(mark):  # repeated: they may start more processes
        for pid in (*_started_by(found), *found):
            _kill(pid)


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 (twice as fast)


def _marked(mark: str) -> set[int]:
    return {pid for pid in _processes() if _has(pid, mark.encode())}


def _started_by(pids: set[int]) -> set[int]:
    """The processes that these have started, and so on."""
    children: dict[int, set[int]] = defaultdict(set)
    for pid in _processes():
        children[_parent(pid)].add(pid)
    found: set[int] = set()
    left = list(pids)
    while left:
        new = children.pop(left.pop(), set()) - pids
        found |= new
        left += new
    return found


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 (as above)
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


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

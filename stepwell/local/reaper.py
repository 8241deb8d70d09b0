"""Reaps orphans: processes that steps left behind, which become children of the server.

Linux makes them children of process 1 (a server in a container), or of a process that is a subreaper. Exit statuses of
processes that the server started itself must not be taken. Each step has a session of its own, so a child is an orphan
if it is in another session than the server and was not started by it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from stepwell.local.runners.process import started
from stepwell.local.system.prctl import become_subreaper

_EVERY_S = 1.0
_AFTER_DEATH_S = 0.02  # the rest of a step's process group dies shortly after the step


@contextlib.asynccontextmanager
async def orphans_reaped() -> AsyncIterator[None]:
    """Reaps orphans while the context lasts. Only for processes that do nothing but serve; Linux only."""
    if not become_subreaper():
        yield
        return
    task = asyncio.create_task(_reap_on())
    try:
        yield
    finally:
        task.cancel()


async def _reap_on() -> None:
    there_are_some = asyncio.Event()
    started.on_orphans = there_are_some.set
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_EVERY_S):
                await there_are_some.wait()
                await asyncio.sleep(_AFTER_DEATH_S)
        there_are_some.clear()
        reap()


def reap() -> int:
    """Reaps all dead orphans. Returns their number."""
    reaped = 0
    with contextlib.suppress(OSError):  # there are no children, or there is no /proc
        if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return 0
        for pid in _dead_orphans():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
                reaped += 1
    return reaped


def _dead_orphans() -> Iterator[int]:
    parent, own_session = os.getpid(), os.getsid(0)
    for pid in _candidates():
        try:
            # "pid (name) state ppid pgrp session ...", where the name may contain anything
            stat = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            state, ppid, session = stat[0], int(stat[1]), int(stat[3])
        except (OSError, ValueError, IndexError):
            continue
        if state == b"Z" and ppid == parent and session != own_session and pid not in started:
            yield pid


def _candidates() -> list[int]:
    """Ids of this process's children, of all threads; ids of all processes if the kernel does not list children."""
    found, is_listed = list[int](), False
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has ended, or the kernel has no such file
            found += map(int, (task / "children").read_bytes().split())
            is_listed = True
    return found if is_listed else [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]

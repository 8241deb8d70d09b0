"""How much memory this process may use, and how much of it a process has for itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from stepwell.local.system.control_groups import control_groups


def usable_memory(root: Path = Path("/")) -> int:
    """In bytes: the machine's memory, or what the limits of its control groups leave of it. `root`: where /proc and
    /sys are."""
    return min([_of_machine(), *_limits(root)])


def _of_machine() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _limits(root: Path) -> Iterator[int]:
    """https://docs.kernel.org/admin-guide/cgroup-v2.html, memory.max; cgroup-v1/memory.html for version 1."""
    for group in control_groups(root, "memory", ("memory",)):
        for name in ("memory.max", "memory.limit_in_bytes"):
            try:
                yield int((group / name).read_text())
            except (OSError, ValueError):  # no limit: `max`, or no such file
                continue


def private_bytes(pid: int) -> int:
    """The memory that the end of this process would free, in bytes: what it shares with no other. 0 if nobody says.
    https://docs.kernel.org/filesystems/proc.html, smaps_rollup."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines()
    except OSError:  # it has ended, or this is not Linux
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(b"Private_")) * 1024

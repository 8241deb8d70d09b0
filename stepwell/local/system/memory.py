"""How much memory this process may use, and how much memory is private to a process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from stepwell.local.system.control_groups import control_groups


def usable_memory(root: Path = Path("/")) -> int:
    """The usable memory in bytes: the machine's, or the limit of the process's control groups if that is lower.
    /proc and /sys are below `root`."""
    return min([_of_machine(), *_limits(root)])


def _of_machine() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _limits(root: Path) -> Iterator[int]:
    """The memory limits of the process's control groups, in bytes.

    https://docs.kernel.org/admin-guide/cgroup-v2.html, memory.max; cgroup-v1/memory.html for version 1."""
    for group in control_groups(root, "memory", ("memory",)):
        for name in ("memory.max", "memory.limit_in_bytes"):
            try:
                yield int((group / name).read_text())
            except (OSError, ValueError):  # no limit: `max`, or no such file
                continue


def private_bytes(pid: int) -> int:
    """The memory in bytes that would be freed if the process ended; 0 if the system does not report it.
    https://docs.kernel.org/filesystems/proc.html, smaps_rollup."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines()
    except OSError:  # the process has ended, or this is not Linux
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(b"Private_")) * 1024

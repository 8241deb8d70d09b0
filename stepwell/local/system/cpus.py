"""The number of CPUs that this process may use, by affinity and the quotas of control groups."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from stepwell.local.system.control_groups import control_groups

_V1 = ("cpu,cpuacct", "cpuacct,cpu", "cpu")


def usable_cpus(root: Path = Path("/")) -> int:
    """The number of usable CPUs, at least 1; a quota of half a CPU counts as one. /proc and /sys are below `root`."""
    return max(1, min([_affinity(), *(math.ceil(quota) for quota in _quotas(root))]))


def _affinity() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not Linux
        return os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    """The CPU quotas of the process's control group and of the groups above it."""
    for group in control_groups(root, "cpu", _V1):
        quota = _quota(group)
        if quota is not None:
            yield quota


def _quota(group: Path) -> float | None:
    """The quota of one group, in CPUs; None for no limit.

    https://docs.kernel.org/admin-guide/cgroup-v2.html, cpu.max; scheduler/sched-bwc.html for version 1."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # no limit: `max`, or no such file
        return None

"""How many CPUs this process may use: what its affinity and the quotas of its control groups leave of the machine's."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from stepwell.local.system.control_groups import control_groups

_V1 = ("cpu,cpuacct", "cpuacct,cpu", "cpu")


def usable_cpus(root: Path = Path("/")) -> int:
    """At least 1; a quota of half a CPU counts as one. `root`: where /proc and /sys are."""
    return max(1, min([_affinity(), *(math.ceil(quota) for quota in _quotas(root))]))


def _affinity() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not Linux
        return os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    """The limits, in CPUs, of the process's control group and of all groups that it is in."""
    for group in control_groups(root, "cpu", _V1):
        quota = _quota(group)
        if quota is not None:
            yield quota


def _quota(group: Path) -> float | None:
    """https://docs.kernel.org/admin-guide/cgroup-v2.html, cpu.max; scheduler/sched-bwc.html for version 1."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # no limit: `max`, or no such file
        return None

"""The number of usable CPUs: by affinity and the quotas of control groups."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stepwell.local.server import default_parallelism
from stepwell.local.system.cpus import usable_cpus

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs Linux")


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


def machine(root: Path, cgroup: str, **files: str) -> int:
    """The number of CPUs on a machine with these files below /sys/fs/cgroup; `__` in a name stands for a slash."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, content in files.items():
        *folders, file = name.split("__")
        folder = root.joinpath("sys/fs/cgroup", *(folder.replace("_and_", ",") for folder in folders))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"cpu.{file}").write_text(content)
    return usable_cpus(root)


@pytest.mark.parametrize(
    ("limit", "cpus"),
    [
        ("max 100000\n", 8),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),  # half a CPU counts as one
        ("10000 100000\n", 1),
        ("50000 50000\n", 1),
        ("1600000 100000\n", 8),  # more than the machine has
        ("", 8),
        ("nonsense", 8),
        ("1 0\n", 8),
    ],
)
def test_the_quota_of_a_control_group_counts(tmp_path: Path, limit: str, cpus: int) -> None:
    assert machine(tmp_path, "0::/\n", max=limit) == cpus


def test_the_least_quota_of_all_groups_around_the_process_counts(tmp_path: Path) -> None:
    files = {"max": "max 100000", "a__max": "200000 100000", "a__b__max": "400000 100000", "c__max": "100000 100000"}
    assert machine(tmp_path, "0::/a/b\n", **files) == 2


def test_a_container_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    assert machine(tmp_path, "0::/system.slice/docker-1.scope\n", max="300000 100000") == 3


@pytest.mark.parametrize("mount", ["cpu", "cpu_and_cpuacct", "cpuacct_and_cpu"])
@pytest.mark.parametrize(("quota", "cpus"), [("-1\n", 8), ("250000\n", 3), ("0", 8)])
def test_control_groups_of_version_1_count_too(tmp_path: Path, mount: str, quota: str, cpus: int) -> None:
    lines = "12:memory:/x\n4:cpu,cpuacct:/docker/1\n1:name=systemd:/y\n0::/\n"
    files = {f"{mount}__docker__1__cfs_quota_us": quota, f"{mount}__docker__1__cfs_period_us": "100000\n"}
    assert machine(tmp_path, lines, **files) == cpus


def test_without_control_groups_the_affinity_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_cpus(tmp_path) == 8
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5})
    assert usable_cpus(tmp_path) == 1


def test_an_invalid_line_is_ignored(tmp_path: Path) -> None:
    assert machine(tmp_path, "\nnonsense\n0::/\n", max="200000 100000") == 2


def test_a_server_that_may_use_one_cpu_has_two_slots() -> None:
    code = "from stepwell.local.server import default_parallelism; print(default_parallelism())"
    pinned = f"import os; os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}}); {code}"
    printed = subprocess.run([sys.executable, "-c", pinned], capture_output=True, check=True).stdout
    assert int(printed) == 2
    assert default_parallelism() >= 2

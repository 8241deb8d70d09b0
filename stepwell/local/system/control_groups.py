"""The control groups of this process, which limit CPUs and memory. Linux only: elsewhere there are none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_V2 = ("", "unified")  # mount points of version 2, below /sys/fs/cgroup


def control_groups(root: Path, controller: str, mounts: tuple[str, ...]) -> Iterator[Path]:
    """The folders of the process's control group and of the groups above it.

    `controller` is the name in version 1, `mounts` are the mount points of version 1. /proc and /sys are below `root`.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        for mount in _V2 if controllers == "" else mounts if controller in controllers.split(",") else ():
            # In a container the path may be the host's. The container then sees its own group as the root.
            for group in (PurePosixPath(path), *PurePosixPath(path).parents):
                yield Path(f"{root}/sys/fs/cgroup/{mount}/{group}")

"""The control groups that this process is in, which limit what it may use. Linux only: elsewhere there are none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_V2 = ("", "unified")  # where it is mounted, below /sys/fs/cgroup


def control_groups(root: Path, controller: str, mounts: tuple[str, ...]) -> Iterator[Path]:
    """The folders of the process's group and of all groups that it is in. `controller`: what version 1 calls it;
    `mounts`: where version 1 mounts it. `root`: where /proc and /sys are."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        for mount in _V2 if controllers == "" else mounts if controller in controllers.split(",") else ():
            # In a container, the path may be the host's: the container's own group is the root that it sees then.
            for group in (PurePosixPath(path), *PurePosixPath(path).parents):
                yield Path(f"{root}/sys/fs/cgroup/{mount}/{group}")

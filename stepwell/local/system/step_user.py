"""The user that programs and handlers run as, if it is another than the server's (`serve --step-user`).

One rule: what cannot work is said at the start, with its cure, and not by the first step that fails.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any


class CannotBecome(OSError):
    """Steps cannot run as this user; the message says why, and the cure."""


@dataclass(frozen=True, slots=True)
class StepUser:
    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str

    @property
    def popen(self) -> dict[str, Any]:
        """Arguments for subprocess.Popen, with which a child is this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": self.groups}


def find_step_user(name: str) -> StepUser:
    """A user by name or number. Raises CannotBecome if there is none, or the server cannot become it."""
    if os.geteuid() != 0:
        cure = "start the server as root, or without --step-user"
        raise CannotBecome(f"only root can run steps as another user, such as {name}: {cure}")
    try:
        struct_passwd = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, OverflowError):
        raise CannotBecome(f"there is no user {name!r}; make one, as by useradd --system {name}") from None
    if struct_passwd.pw_uid == 0:
        raise CannotBecome("--step-user is root, who may do everything; name a user who may do little")
    return StepUser(
        struct_passwd.pw_name,
        struct_passwd.pw_uid,
        struct_passwd.pw_gid,
        tuple(os.getgrouplist(struct_passwd.pw_name, struct_passwd.pw_gid)),
        struct_passwd.pw_dir,
    )


def require(user: StepUser, code: Path) -> None:
    """Raises CannotBecome if the system does not let the server become this user, or it cannot reach its code."""
    for folder in (code, Path(tempfile.gettempdir())):
        if not _may(user, "-x", folder):
            cure = "choose another --db, or TMPDIR, or open the folders above it to that user (chmod a+x)"
            raise CannotBecome(f"the user {user.name} cannot enter {folder}, which steps need: {cure}")


@lru_cache(maxsize=8)
def python_for(user: StepUser) -> str:
    """The interpreter of handlers in Python: the server's, or, if this user cannot reach that, the first one on PATH
    that it can."""
    return sys.executable if _may(user, "-x", Path(sys.executable)) else "python3"


def out_of_reach(user: StepUser) -> str | None:
    """A warning if there is no Python that this user can reach."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    if python_for(user) == sys.executable or any(_may(user, "-x", Path(folder, "python3")) for folder in folders):
        return None
    return (
        f"the user {user.name} cannot reach {sys.executable}, and no other python3: handlers in Python need a .venv of"
        " their own, or a Python that everybody may run, such as one in /usr/bin"
    )


def _may(user: StepUser, flag: str, path: Path) -> bool:
    """As test(1) answers it for this user."""
    try:
        return subprocess.run(["test", flag, str(path)], check=False, cwd="/", **user.popen).returncode == 0
    except OSError as error:
        raise CannotBecome(f"the server cannot become {user.name}: {error.strerror or error}") from None

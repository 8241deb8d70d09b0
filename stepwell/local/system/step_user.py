"""The user that programs and handlers run as, if it is not the server's (`serve --step-user`).

A configuration that cannot work is reported when the server starts, not by the first step that fails.
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
    """Steps cannot run as this user. The message contains the reason and the fix."""


@dataclass(frozen=True, slots=True)
class StepUser:
    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str

    @property
    def popen(self) -> dict[str, Any]:
        """Arguments of subprocess.Popen that run a child as this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": self.groups}


def find_step_user(name: str) -> StepUser:
    """The user with this name or number. Raises CannotBecome if it does not exist or the server cannot switch to it."""
    if os.geteuid() != 0:
        cure = "start the server as root, or without --step-user"
        raise CannotBecome(f"only root can run steps as another user, such as {name}: {cure}")
    try:
        struct_passwd = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, OverflowError):
        raise CannotBecome(f"there is no user {name!r}; create it, for example: useradd --system {name}") from None
    if struct_passwd.pw_uid == 0:
        raise CannotBecome("--step-user is root, which has all permissions; name a user with few permissions")
    return StepUser(
        struct_passwd.pw_name,
        struct_passwd.pw_uid,
        struct_passwd.pw_gid,
        tuple(os.getgrouplist(struct_passwd.pw_name, struct_passwd.pw_gid)),
        struct_passwd.pw_dir,
    )


def check_access(user: StepUser, code: Path) -> None:
    """Raises CannotBecome if the server cannot switch to this user, or the user cannot enter the folder of code."""
    for folder in (code, Path(tempfile.gettempdir())):
        if not _may(user, "-x", folder):
            cure = "choose another --db, or TMPDIR, or open the folders above it to that user (chmod a+x)"
            raise CannotBecome(f"the user {user.name} cannot enter {folder}, which steps need: {cure}")


@lru_cache(maxsize=8)
def python_for(user: StepUser) -> str:
    """The interpreter for Python handlers: the server's, or the first `python3` on PATH if the user cannot reach it."""
    return sys.executable if _may(user, "-x", Path(sys.executable)) else "python3"


def python_warning(user: StepUser) -> str | None:
    """A warning if the user cannot reach any Python, else None."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    if python_for(user) == sys.executable or any(_may(user, "-x", Path(folder, "python3")) for folder in folders):
        return None
    return (
        f"the user {user.name} cannot reach {sys.executable} or any python3 on PATH: Python handlers need a .venv of"
        " their own, or a Python that every user may run, such as one in /usr/bin"
    )


def _may(user: StepUser, flag: str, path: Path) -> bool:
    """Whether the user passes `test FLAG PATH` (see test(1))."""
    try:
        return subprocess.run(["test", flag, str(path)], check=False, cwd="/", **user.popen).returncode == 0
    except OSError as error:
        raise CannotBecome(f"the server cannot become {user.name}: {error.strerror or error}") from None

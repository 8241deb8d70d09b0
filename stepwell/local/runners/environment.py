"""The environment variables of a step.

Of the server's own environment, a step gets only PATH and HOME (HOME of the step's user).
"""

from __future__ import annotations

import os
from pathlib import Path

from stepwell.local.runners.job import Job
from stepwell.local.system.step_user import StepUser


def environment(job: Job, temporary: str, user: StepUser | None = None) -> dict[str, str]:
    """The variables of a program or worker: a few that every program needs, then the declared ones."""
    env = {
        "PATH": search_path(job.code),
        "HOME": user.home if user else os.environ.get("HOME", "/"),
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",  # so that the code folder keeps its hash, even if root could write to it
    }
    env.update(job.env)
    env["TMPDIR"] = temporary
    return env


def search_path(code: Path | None) -> str:
    """The server's PATH, after the step's own virtual environment if it has one."""
    path = os.environ.get("PATH", os.defpath)
    if code is None:
        return path
    own = f"{code}/.venv/bin"
    return f"{own}{os.pathsep}{path}" if os.path.isdir(own) else path  # noqa: PTH112 (once an attempt)

"""The environment variables of a step.

One rule: of the server's own environment a step sees PATH and HOME (of its user), and nothing else.
"""

from __future__ import annotations

import os
from pathlib import Path

from stepwell.local.runners.job import Job
from stepwell.local.system.step_user import StepUser


def environment(job: Job, temporary: str, user: StepUser | None = None) -> dict[str, str]:
    """What a program or worker gets: the declared variables, in front of them the few that every program needs."""
    env = {
        "PATH": search_path(job.code),
        "HOME": user.home if user else os.environ.get("HOME", "/"),
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",  # the code folder stays what its hash says, also where root could write to it
    }
    env.update(job.env)
    env["TMPDIR"] = temporary
    return env


def search_path(code: Path | None) -> str:
    """PATH: the server's, and before it the step's own virtual environment if it has one."""
    path = os.environ.get("PATH", os.defpath)
    if code is None:
        return path
    own = f"{code}/.venv/bin"
    return f"{own}{os.pathsep}{path}" if os.path.isdir(own) else path  # noqa: PTH112 (once an attempt)

"""Finds the container engine of this machine: docker, else podman.

A client counts only if `version` succeeds: a docker client without a running daemon does not count.
"""

from __future__ import annotations

import shutil
import subprocess

_ENGINES = ("docker", "podman")
_ANSWERS_WITHIN_S = 5.0


class NoEngine(Exception):
    """No container engine works; the message lists each one with the reason."""


def find_engine() -> str:
    """The path of docker or podman. Starts a process, so it blocks for a moment. Raises NoEngine."""
    reasons = []
    for name in _ENGINES:
        path = shutil.which(name)
        if path is None:
            reasons.append(f"{name} is not on PATH")
            continue
        try:
            answer = subprocess.run([path, "version"], capture_output=True, timeout=_ANSWERS_WITHIN_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            reasons.append(f"{name}: {error}")
            continue
        if answer.returncode == 0:
            return path
        reasons.append(f"{name}: {last_line(answer.stderr) or 'does not answer'}")
    raise NoEngine(f"found no container engine ({'; '.join(reasons)})")


def last_line(text: bytes) -> str:
    """The last line that is not blank, for a message."""
    return text.rstrip().rpartition(b"\n")[2][-500:].decode("utf-8", "replace").strip()

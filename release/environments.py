"""Virtual environments of a release, and programs that run in them."""

from __future__ import annotations

import os
import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path


class ReleaseFailed(Exception):
    """A check failed; the message says which, with the output of the program that found it."""


def run(command: Sequence[str | Path], *, on_path: Path | None = None, **variables: str) -> str:
    """The output of a program. Raises ReleaseFailed with this output if the program fails."""
    path = os.environ["PATH"] if on_path is None else f"{on_path}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, **variables}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        words = " ".join(str(word) for word in command)
        raise ReleaseFailed(f"`{words}` ended with {done.returncode}:\n{done.stdout.strip()}")
    return done.stdout


def tools_environment(folder: Path, lock: Path) -> Path:
    """The `bin` folder of an environment with exactly the packages of a lock file."""
    venv.create(folder, with_pip=True, clear=True)
    run([folder / "bin/pip", "install", "--quiet", "--require-hashes", "--requirement", lock])
    return folder / "bin"


def wheel_environment(folder: Path, wheel: Path, tools: Path) -> Path:
    """The `bin` folder of an environment with a wheel and what it requires, and nothing else, not even pip."""
    venv.create(folder, with_pip=False, clear=True)
    run([tools / "pip", "--python", folder / "bin/python", "install", "--quiet", wheel])
    return folder / "bin"

"""Workers and clients of Faktory in processes of their own, with the packages that their authors publish."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers import DEADLINE_S

ROOT = Path(__file__).parents[3]
EXAMPLE, GUIDE = ROOT / "examples" / "faktory", ROOT / "docs" / "guides" / "faktory.md"
PACKAGE = "faktory-worker"  # https://www.npmjs.com/package/faktory-worker
VERSION = "4.7.1"


def node_modules(cache: Path) -> Path:
    """A folder `node_modules` with the package for Node, installed into `cache` once."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    folder = cache / "node_modules"
    if not (folder / PACKAGE / "package.json").exists():
        command = ["npm", "install", "--prefix", str(cache), "--no-audit", "--no-fund", f"{PACKAGE}@{VERSION}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode:
            pytest.skip(f"npm cannot install {PACKAGE}: {done.stderr[-300:]}")
    return folder


class Process:
    """A process whose output is collected. `lines`: the lines of stdout and stderr so far."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            command, env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()

    def count(self, beginning: str) -> int:
        return sum(line.startswith(beginning) for line in self.lines)

    def wait_for(self, beginning: str, times: int = 1) -> None:
        """Waits until so many lines begin with this text."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.count(beginning) >= times, DEADLINE_S), self.lines

    def kill(self) -> None:
        """Kills the process and those that it started."""
        try:
            os.killpg(self.process.pid, 9)
        except ProcessLookupError:
            pass
        self.process.wait(DEADLINE_S)
        self._thread.join(DEADLINE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def running(command: list[str], env: dict[str, str]) -> Iterator[Process]:
    process = Process(command, env)
    try:
        yield process
    finally:
        process.kill()


def node(script: Path, url: str, modules: Path) -> list[str]:
    """The command and, by the environment, the place of packages for a script in Node."""
    return ["env", f"NODE_PATH={modules}", f"FAKTORY_URL={url}", "node", str(script)]


def python(script: Path, url: str) -> list[str]:
    return ["env", f"FAKTORY_URL={url}", sys.executable, str(script)]

"""Python runtimes by fork: one process has loaded what all of them need, and becomes each of them.

One rule: a runtime sees no difference. What only the start of an interpreter can give, such as a PYTHONHASHSEED, is not
done by fork (`can_fork`).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Protocol

PYTHON_RUNTIME = Path(__file__).with_name("python_runtime.py")
_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_")  # what interpreters and loaders read when they start
_LOCALE = {"LANG": "en_US.UTF-8"}


class Process(Protocol):
    """As much of `subprocess.Popen` as a sandbox needs."""

    @property
    def pid(self) -> int: ...

    def wait(self) -> int: ...


class Forked:
    """A process that is nobody's child here. `ending`: where its id and its exit code are told."""

    def __init__(self, ending: int) -> None:
        self._ending = os.fdopen(ending, "rb")
        self.pid = int(self._ending.readline())

    def wait(self) -> int:
        """Its exit code, negative for a signal; once."""
        with self._ending:
            return int(self._ending.readline() or -9)


class PythonServer:
    """Starts when it is first used. May be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channel: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, handler: str, cwd: Path, env: Mapping[str, str], log: BinaryIO) -> Forked:
        order = json.dumps({"handler": handler, "cwd": str(cwd), "env": dict(env)}).encode()
        ours, theirs = os.pipe()
        try:
            with self._lock:
                channel = self._channel or self._begin()
                socket.send_fds(channel, [len(order).to_bytes(4, "big")], [log.fileno(), theirs])
                channel.sendall(order)
        finally:
            os.close(theirs)
        return Forked(ours)

    def close(self) -> None:
        with self._lock:
            if self._channel is not None and self._process is not None:
                self._channel.close()
                self._process.wait()
                self._channel = self._process = None

    def _begin(self) -> socket.socket:
        self._channel, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(PYTHON_RUNTIME), "", str(theirs.fileno())],
                cwd="/",
                env=_LOCALE,
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        return self._channel


def can_fork(declared: Mapping[str, str], task: Path) -> bool:
    """`declared`: the function's own variables. Libraries of its own are found by a variable that is read at start."""
    return not any(name.startswith(_AT_START) for name in declared) and not (task / "lib").exists()

"""Python runtimes by fork: one process has loaded what all of them need, and becomes each of them.

One rule: a runtime sees no difference. What only the start of an interpreter can give, such as a PYTHONHASHSEED, is not
done by fork (`can_fork`).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
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


# What a wrapper starts in place of Python. It says in which environment, and ends as the fork does; or it becomes the
# Python that it stands for. (A shell, since that starts in a millisecond.)
_STAND_IN = r"""
{ cat /proc/$$/environ; printf '\0\0'; } > /dev/fd/$1
read -r end < /dev/fd/$2; shift 2
case $end in start) exec "$@";; -*) kill "$end" $$;; *) exit "$end";; esac
"""


@dataclass(frozen=True, slots=True)
class Order:
    """A Python runtime that is to be started. `command`: what is started where it cannot be forked."""

    command: Sequence[str]
    handler: str
    cwd: Path
    env: Mapping[str, str]
    log: BinaryIO


class WrappedFork:
    """A fork for what a wrapper (`AWS_LAMBDA_EXEC_WRAPPER`) starts: the wrapper is the process, as on Lambda."""

    def __init__(self, server: PythonServer, wrapper: str, order: Order) -> None:
        says, number = os.pipe()
        waits, ends = os.pipe()
        try:
            self._process = subprocess.Popen(
                [wrapper, "/bin/sh", "-c", _STAND_IN, "sh", str(number), str(waits), *order.command],
                cwd=order.cwd,
                env=dict(order.env),
                stdin=subprocess.DEVNULL,
                stdout=order.log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(number, waits),
            )
        except OSError:
            os.close(says)
            os.close(ends)
            raise
        finally:
            os.close(number)
            os.close(waits)
        self.pid = self._process.pid
        self._lock = threading.Lock()
        self._fork: Forked | None = None  # while it runs
        threading.Thread(target=self._stand_for, args=(server, order, says, ends), daemon=True).start()

    def wait(self) -> int:
        code = self._process.wait()
        with self._lock:
            self._kill_fork()
        return code

    def _kill_fork(self) -> None:
        """With all of its group: it is in a session of its own."""
        if self._fork is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._fork.pid, signal.SIGKILL)

    def _stand_for(self, server: PythonServer, order: Order, says: int, ends: int) -> None:
        with suppress(OSError, ValueError), os.fdopen(says, "rb", buffering=0) as file_io, os.fdopen(ends, "w") as end:
            text = b""
            while not text.endswith(b"\0\0\0"):
                more = file_io.read(65536)
                if not more:
                    return  # the wrapper has ended, or has started something else
                text += more
            variables = dict(name.split("=", 1) for name in text.decode().split("\0") if name)
            changed = {name: text for name, text in variables.items() if order.env.get(name) != text}
            if not can_fork(changed, order.cwd):
                end.write("start\n")
                return
            fork = server.start(order.handler, order.cwd, variables, order.log)
            with self._lock:
                self._fork = fork
                if self._process.poll() is not None:
                    self._kill_fork()
            code = fork.wait()
            with self._lock:
                self._fork = None
            end.write(f"{code}\n")


def can_fork(declared: Mapping[str, str], task: Path) -> bool:
    """`declared`: the function's own variables. Libraries of its own are found by a variable that is read at start."""
    return not any(name.startswith(_AT_START) for name in declared) and not (task / "lib").exists()

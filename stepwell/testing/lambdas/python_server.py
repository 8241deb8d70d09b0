"""Starts Python runtimes by fork: one process has imported what all of them need, and forks for each.

A forked runtime behaves like a started one. Functions with settings that only a new interpreter reads, such as
PYTHONHASHSEED, are not forked (`can_fork`).
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
_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_")  # variables that interpreters and loaders read at their start
_LOCALE = {"LANG": "en_US.UTF-8"}


class Process(Protocol):
    """The part of `subprocess.Popen` that a sandbox uses."""

    @property
    def pid(self) -> int: ...

    def wait(self) -> int: ...


class Forked:
    """A process that is not a child of this process. Its pid and exit code are read from the file `ending`."""

    def __init__(self, ending: int) -> None:
        self._ending = os.fdopen(ending, "rb")
        self.pid = int(self._ending.readline())

    def wait(self) -> int:
        """Waits for the end. Returns the exit code, negative for a signal. Call it once."""
        with self._ending:
            return int(self._ending.readline() or -9)


class PythonServer:
    """Forks Python runtimes. Its own process starts at the first use. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channel: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, handler: str, cwd: Path, env: Mapping[str, str], log: BinaryIO) -> Forked:
        order = json.dumps({"handler": handler, "cwd": str(cwd), "env": dict(env)}).encode()
        ending, child_ending = os.pipe()
        try:
            with self._lock:
                channel = self._channel or self._begin()
                socket.send_fds(channel, [len(order).to_bytes(4, "big")], [log.fileno(), child_ending])
                channel.sendall(order)
        finally:
            os.close(child_ending)
        return Forked(ending)

    def close(self) -> None:
        with self._lock:
            if self._channel is not None and self._process is not None:
                self._channel.close()
                self._process.wait()
                self._channel = self._process = None

    def _begin(self) -> socket.socket:
        self._channel, child_channel = socket.socketpair()
        with child_channel:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(PYTHON_RUNTIME), "", str(child_channel.fileno())],
                cwd="/",
                env=_LOCALE,
                stdin=subprocess.DEVNULL,
                pass_fds=(child_channel.fileno(),),
                start_new_session=True,
            )
        return self._channel


# A wrapper starts this shell script instead of Python. It reports its environment, and ends as the fork does; or it
# starts the Python that it replaces. (It is a shell script because a shell starts in a millisecond.)
_STAND_IN = r"""
{ cat /proc/$$/environ; printf '\0\0'; } > /dev/fd/$1
read -r end < /dev/fd/$2; shift 2
case $end in start) exec "$@";; -*) kill "$end" $$;; *) exit "$end";; esac
"""


@dataclass(frozen=True, slots=True)
class Order:
    """A Python runtime to start. `command`: the command line to use if it cannot be forked."""

    command: Sequence[str]
    handler: str
    cwd: Path
    env: Mapping[str, str]
    log: BinaryIO


class WrappedFork:
    """A fork in place of what a wrapper (`AWS_LAMBDA_EXEC_WRAPPER`) starts.

    The wrapper is the process, as on Lambda.
    """

    def __init__(self, server: PythonServer, wrapper: str, order: Order) -> None:
        environment_out, environment_in = os.pipe()
        end_out, end_in = os.pipe()
        try:
            self._process = subprocess.Popen(
                [wrapper, "/bin/sh", "-c", _STAND_IN, "sh", str(environment_in), str(end_out), *order.command],
                cwd=order.cwd,
                env=dict(order.env),
                stdin=subprocess.DEVNULL,
                stdout=order.log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(environment_in, end_out),
            )
        except OSError:
            os.close(environment_out)
            os.close(end_in)
            raise
        finally:
            os.close(environment_in)
            os.close(end_out)
        self.pid = self._process.pid
        self._lock = threading.Lock()
        self._fork: Forked | None = None  # set while it runs
        arguments = (server, order, environment_out, end_in)
        threading.Thread(target=self._stand_for, args=arguments, daemon=True).start()

    def wait(self) -> int:
        code = self._process.wait()
        with self._lock:
            self._kill_fork()
        return code

    def _kill_fork(self) -> None:
        """Kills the fork with its process group: it has a session of its own."""
        if self._fork is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._fork.pid, signal.SIGKILL)

    def _stand_for(self, server: PythonServer, order: Order, environment_out: int, end_in: int) -> None:
        with (
            suppress(OSError, ValueError),
            os.fdopen(environment_out, "rb", buffering=0) as environment,
            os.fdopen(end_in, "w") as end,
        ):
            text = b""
            while not text.endswith(b"\0\0\0"):
                more = environment.read(65536)
                if not more:
                    return  # the wrapper has ended, or has started a different program
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
    """Whether the function can be forked. `declared`: the function's own variables.

    A `lib` folder in the code is on LD_LIBRARY_PATH, which the loader reads only at the start of a process.
    """
    return not any(name.startswith(_AT_START) for name in declared) and not (task / "lib").exists()

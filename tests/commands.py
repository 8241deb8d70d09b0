"""Runs the command `stepwell` in a separate process.

If possible, the process is forked from one that has already imported Stepwell (`tests.forking`), which is faster. The
command sees no other difference. Tests of installation and of start-up call `python -m stepwell` themselves.
"""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

from tests import forking

# Variables that Python and imported modules read only once.
_READ_ONCE = ("PYTHON", "LC_", "LANG", "TZ", "TERM", "COLUMNS", "LINES", "COLOR", "NO_COLOR", "FORCE_COLOR", "_TYPER")
_READ_ONCE += ("TYPER", "PY_COLORS", "CLICOLOR", "GITHUB_ACTIONS", "JUPYTER", "SSL_", "MALLOC", "LD_", "PYDANTIC")


class Command:
    """A running command, with the part of `subprocess.Popen` that tests use.

    Standard output and error are text pipes. Standard input is this process's, or a pipe to which `input` is written.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        env: Mapping[str, str] | None = None,
        *,
        files: Sequence[Any] = (),
        cwd: str | None = None,
    ) -> None:
        """`files`: standard input, output and error, instead of pipes. `cwd`: the working directory, if not ours."""
        self.arguments, self.returncode = list(arguments), None
        self.stdout: IO[str] | None = None
        self.stderr: IO[str] | None = None
        ends = []
        if not files:
            read, write = zip(os.pipe(), os.pipe(), strict=True)
            self.stdout, self.stderr = (os.fdopen(fd, encoding="utf-8") for fd in read)
            ends, files = list(write), [0, *write]
        self._connection, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        _server().request(self.arguments, {**os.environ, **(env or {})}, [*files, peer], cwd)
        peer.close()
        for fd in ends:
            os.close(fd)
        self.pid = self._receive(None)

    def _receive(self, timeout: float | None) -> int:
        self._connection.settimeout(timeout)
        content = self._connection.recv(8)
        assert content, "the forking process has ended"
        return int.from_bytes(content, "little", signed=True)

    def poll(self) -> int | None:
        try:
            return self._wait(0)
        except (TimeoutError, BlockingIOError):
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end. Returns the exit code, negative for a signal."""
        try:
            return self._wait(timeout)
        except TimeoutError:
            raise subprocess.TimeoutExpired(self.arguments, timeout or 0) from None

    def _wait(self, timeout: float | None) -> int:
        if self.returncode is None:
            self.returncode = self._receive(timeout)
            self._connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(
    arguments: Sequence[str], env: Mapping[str, str] | None = None, *, within: Sequence[str] = ()
) -> Command | subprocess.Popen[str]:
    """Starts `stepwell` with these arguments, and these additional variables.

    `within` is a command that executes the command after it.
    """
    if not within and can_fork(env):
        return Command(arguments, env)
    command = [*within, sys.executable, "-m", "stepwell", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env={**os.environ, **(env or {})})


def run(
    arguments: Sequence[str],
    env: Mapping[str, str] | None = None,
    input: str | None = None,
    timeout: float = 30,
    cwd: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs `stepwell` until it ends."""
    if not can_fork(env):
        command, variables = [sys.executable, "-m", "stepwell", *arguments], {**os.environ, **(env or {})}
        return subprocess.run(
            command, capture_output=True, text=True, input=input, timeout=timeout, env=variables, cwd=cwd
        )
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        read, write = (0, None) if input is None else os.pipe()
        command = Command(arguments, env, files=[read, stdout, stderr], cwd=cwd)
        if write is not None:
            os.close(read)
            threading.Thread(target=_write, args=(write, (input or "").encode())).start()
        try:
            code = command.wait(timeout)
        finally:
            command.kill()
        texts = [_text(file) for file in (stdout, stderr)]
    return subprocess.CompletedProcess(command.arguments, code, *texts)


def _write(pipe: int, content: bytes) -> None:
    with open(pipe, "wb") as file:
        try:
            file.write(content)
            file.flush()
        except BrokenPipeError:
            pass  # the command does not read all of it


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode().replace("\r\n", "\n")


# --- the forking process ---------------------------------------------------------------------------------------------


def can_fork(env: Mapping[str, str] | None) -> bool:
    """Whether the forking process can start a child with these variables."""
    wanted = {**os.environ, **(env or {})}
    return hasattr(os, "pidfd_open") and not os.isatty(0) and _read_once(wanted) == _server().read_once


def _read_once(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name.startswith(_READ_ONCE)}


@cache
def _server() -> _ForkServer:
    return _ForkServer()


class _ForkServer:
    def __init__(self) -> None:
        self.read_once = _read_once(os.environ)
        self._lock = threading.Lock()
        self._control, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, forking.__file__, str(peer.fileno())],
            pass_fds=[peer.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        peer.close()

    def request(self, arguments: Sequence[str], env: Mapping[str, str], files: Sequence[Any], cwd: str | None) -> None:
        """Requests a fork. Raises OSError if the forking process has ended."""
        umask = os.umask(0)
        os.umask(umask)
        request = {"arguments": arguments, "env": env, "cwd": cwd or str(Path.cwd()), "umask": umask}
        numbers = array.array("i", [file if isinstance(file, int) else file.fileno() for file in files])
        with self._lock:
            message = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)]
            self._control.sendmsg([json.dumps(request, ensure_ascii=True).encode()], message)

    def stop(self) -> None:
        self._control.close()
        self._process.wait(20)


def stop() -> None:
    """Ends the forking process, if there is one. Commands that it started continue."""
    if _server.cache_info().currsize:
        _server().stop()
        _server.cache_clear()

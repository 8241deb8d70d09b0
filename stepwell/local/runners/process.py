"""A child process in a session of its own, watched by the event loop.

One rule: once the process has ended, its whole group is killed, and nobody waits for those who still hold its pipes.
Popen with a pidfd takes 0.2 ms of the loop's thread; uvloop's own subprocesses fork, and take 1 to 5 ms.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stepwell.local.step_user import StepUser

_PIECE = 64 * 1024  # what is read at once, so that no process keeps the loop for itself
_MOST_LEFT = 2 * 1024 * 1024  # read after the end; pipes hold at most 1 MiB


class Started:
    """The processes that were started here and whose end was not taken yet. Others must not wait for them."""

    def __init__(self) -> None:
        self._pids: set[int] = set()
        self.on_orphans: Callable[[], object] = lambda: None

    def __contains__(self, pid: int) -> bool:
        return pid in self._pids

    def add(self, pid: int) -> None:
        self._pids.add(pid)

    def remove(self, pid: int) -> None:
        """Its end is taken. Others of its group may live, or be dead and wait for their new parent."""
        self._pids.discard(pid)
        with contextlib.suppress(OSError):
            os.killpg(pid, 0)  # raises if there is nobody
            self.on_orphans()


started = Started()


class Process:
    """Runs until it ends or `kill`. `receive(stream, bytes)` gets what it prints; then `ended(code)` is called once,
    with the exit code, negative for a signal."""

    def __init__(
        self,
        argv: Sequence[str | bytes],
        *,
        cwd: str | None,
        env: Mapping[str, str],
        receive: Callable[[str, bytes], None],
        ended: Callable[[int], None],
        stdin: str = os.devnull,
        pass_fds: Sequence[int] = (),
        user: StepUser | None = None,
    ) -> None:
        """Raises OSError if it cannot be started."""
        self._loop = asyncio.get_running_loop()
        self._receive, self._ended = receive, ended
        self._pipes: dict[int, str] = {}
        self._pidfd = -1
        self._popen = self._spawn(argv, cwd, env, stdin, pass_fds, user)
        for pipe in self._pipes:
            self._loop.add_reader(pipe, self._read, pipe)
        self._watch()

    def _spawn(
        self,
        argv: Sequence[str | bytes],
        cwd: str | None,
        env: Mapping[str, str],
        stdin: str,
        pass_fds: Sequence[int],
        user: StepUser | None,
    ) -> subprocess.Popen[bytes]:
        with contextlib.ExitStack() as mine, contextlib.ExitStack() as theirs:
            descriptor = os.open(stdin, os.O_RDONLY)
            theirs.callback(os.close, descriptor)
            writers: dict[str, Any] = {}
            for stream in ("stdout", "stderr"):
                reader, writers[stream] = os.pipe()
                mine.callback(os.close, reader)
                theirs.callback(os.close, writers[stream])
                os.set_blocking(reader, False)
                self._pipes[reader] = stream
            popen = subprocess.Popen(
                argv,
                stdin=descriptor,
                cwd=cwd,
                env=env,
                start_new_session=True,
                pass_fds=pass_fds,
                **writers,
                **(user.popen if user else {}),
            )
            mine.pop_all()
            started.add(popen.pid)
            return popen

    @property
    def pid(self) -> int:
        return self._popen.pid

    def kill(self) -> None:
        """Kill the process and its group. Does nothing after the end."""
        if self._popen.returncode is None:
            with contextlib.suppress(OSError):
                os.killpg(self._popen.pid, signal.SIGKILL)

    def drain(self) -> None:
        """Receive what was printed so far."""
        for pipe in list(self._pipes):
            left = _MOST_LEFT
            while left > 0 and (size := self._read(pipe)):
                left -= size

    def _read(self, pipe: int) -> int:
        try:
            piece = os.read(pipe, _PIECE)
        except BlockingIOError:
            return 0
        if piece:
            self._receive(self._pipes[pipe], piece)
        else:
            self._close(pipe)
        return len(piece)

    def _close(self, pipe: int) -> None:
        self._loop.remove_reader(pipe)
        os.close(pipe)
        del self._pipes[pipe]

    def _watch(self) -> None:
        try:
            self._pidfd = os.pidfd_open(self._popen.pid)
        except (AttributeError, OSError):  # not Linux, or before 5.3
            threading.Thread(target=self._wait, args=(self._loop,), daemon=True).start()
        else:
            self._loop.add_reader(self._pidfd, self._died)

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        self._popen.wait()
        with contextlib.suppress(RuntimeError):  # the loop is gone
            loop.call_soon_threadsafe(self._died)

    def _died(self) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self._popen.pid, signal.SIGKILL)  # not reaped yet: the number is still this group's
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
        code = self._popen.wait()
        started.remove(self._popen.pid)
        self.drain()
        for pipe in list(self._pipes):
            self._close(pipe)
        self._ended(code)

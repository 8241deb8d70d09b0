"""A process in a session of its own, watched by the event loop.

When the process has ended, the whole group is killed, and pipes that other processes hold are closed without waiting.
To spawn a process with a pidfd blocks the loop for 0.2 ms; uvloop's own subprocesses fork, which takes 1 to 5 ms.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence

from stepwell.core.plain_data import immutable
from stepwell.local.runners import posix_spawn
from stepwell.local.system.step_user import StepUser

_PIECE = 64 * 1024  # read at once, so that no process blocks the loop
_MOST_LEFT = 2 * 1024 * 1024  # read after the end; pipes contain at most 1 MiB


Receive = Callable[[str, bytes], None]
Ended = Callable[[int], None]


class Started:
    """The processes started here whose end was not handled yet. Other code must not wait for them."""

    def __init__(self) -> None:
        self._pids: set[int] = set()
        self.on_orphans: Callable[[], object] = lambda: None

    def __contains__(self, pid: int) -> bool:
        return pid in self._pids

    def add(self, pid: int) -> None:
        self._pids.add(pid)

    def remove(self, pid: int) -> None:
        """The end was handled. Others of the group may still live, or be zombies that need their new parent."""
        self._pids.discard(pid)
        with contextlib.suppress(OSError):
            os.killpg(pid, 0)  # raises if the group is empty
            self.on_orphans()


started = Started()


class Watched:
    """A watched process: streams, pidfd and end."""

    def __init__(self, receive: Receive, ended: Ended) -> None:
        """`receive(stream, bytes)` gets the process's output. Then `ended(code)` is called once, with the exit code;
        negative for a signal."""
        self._loop = asyncio.get_running_loop()
        self._receive, self._ended = receive, ended
        self._pipes: dict[int, str] = {}
        self._printed = select.poll()  # finds pipes with data in one system call
        self._pidfd = -1

    def _open_streams(self, stdin: str) -> list[int]:
        """The process's descriptors for stdin, stdout and stderr; the caller closes them. Raises OSError, and then
        leaves nothing open."""
        descriptors: list[int] = []
        try:
            descriptors.append(os.open(stdin, os.O_RDONLY))
            for stream in ("stdout", "stderr"):
                reader, writer = os.pipe()
                descriptors.append(writer)
                self._pipes[reader] = stream
                self._printed.register(reader, select.POLLIN)
                os.set_blocking(reader, False)
        except OSError:
            self._discard(descriptors)
            raise
        return descriptors

    def _discard(self, descriptors: Sequence[int]) -> None:
        """Closes the streams of a process that was not started."""
        for descriptor in (*descriptors, *self._pipes):
            os.close(descriptor)
        self._pipes.clear()

    def _listen(self) -> None:
        for pipe in self._pipes:
            self._loop.add_reader(pipe, self._read, pipe)

    def drain(self) -> None:
        """Receives all output so far."""
        for pipe, _ in self._printed.poll(0):
            left, size = _MOST_LEFT, _PIECE
            while left > 0 and size == _PIECE:  # a shorter piece has emptied the pipe
                size = self._read(pipe)
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
        self._printed.unregister(pipe)
        os.close(pipe)
        del self._pipes[pipe]

    def _close_pidfd(self) -> None:
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _finish(self, code: int) -> None:
        """The process has ended: read the rest of the output, and call `ended`."""
        self.drain()
        for pipe in list(self._pipes):
            self._close(pipe)
        ended = self._ended
        del self._ended, self._receive  # breaks reference cycles: see `router._Attempt.end`
        ended(code)


def kill_group(pid: int) -> None:
    """Kills the process and its group. It must not have been waited for: the id could belong to another process."""
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)


@immutable
class Program:
    """What a process runs, and with which arguments. `stdin` is a file; `user` is None for the server's own user."""

    argv: Sequence[str | bytes]
    cwd: str | None
    env: Mapping[str, str]
    stdin: str = os.devnull
    pass_fds: Sequence[int] = ()
    user: StepUser | None = None


class Process(Watched):
    """A child of this process. It runs until it ends or `kill` is called."""

    def __init__(self, program: Program, receive: Receive, ended: Ended) -> None:
        """Starts the process. Raises OSError."""
        super().__init__(receive, ended)
        self._popen: subprocess.Popen[bytes] | None = None
        self._is_over = False
        streams = self._open_streams(program.stdin)
        try:
            self.pid = self._spawn(program, streams)
        except BaseException:
            self._discard(())
            raise
        finally:
            for descriptor in streams:
                os.close(descriptor)
        started.add(self.pid)
        self._listen()
        self._watch()

    def _spawn(self, program: Program, streams: Sequence[int]) -> int:
        user, is_path = program.user, "/" in os.fsdecode(program.argv[0])
        if is_path and user is None and not program.pass_fds and min(streams) > 2 and posix_spawn.is_possible():
            return posix_spawn.posix_spawn(program.argv, program.cwd, program.env, streams)
        self._popen = subprocess.Popen(
            program.argv,
            stdin=streams[0],
            stdout=streams[1],
            stderr=streams[2],
            cwd=program.cwd,
            env=program.env,
            start_new_session=True,
            pass_fds=program.pass_fds,
            **(user.popen if user else {}),
        )
        return self._popen.pid

    def kill(self) -> None:
        """Kills the process and its group. Does nothing after the end."""
        if not self._is_over:
            kill_group(self.pid)

    def _watch(self) -> None:
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # not Linux, or before 5.3
            threading.Thread(target=self._wait, args=(self._loop,), daemon=True).start()
        else:
            self._loop.add_reader(self._pidfd, self._died)

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        code = self._exit_code()
        kill_group(self.pid)  # while the group has members, no other process can have the id
        with contextlib.suppress(RuntimeError):  # the loop is gone
            loop.call_soon_threadsafe(self._ended_with, code)

    def _exit_code(self) -> int:
        """Waits for the process. Afterwards the id may belong to another process."""
        code = self._wait_status() if self._popen is None else self._popen.wait()
        self._is_over = True
        return code

    def _wait_status(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _died(self) -> None:
        kill_group(self.pid)
        self._close_pidfd()
        self._ended_with(self._exit_code())

    def _ended_with(self, code: int) -> None:
        started.remove(self.pid)
        self._finish(code)

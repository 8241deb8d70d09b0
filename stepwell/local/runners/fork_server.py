"""Interpreters from which Python workers are forked, one per Python installation.

To start a forked worker takes a tenth of the CPU time of a new process, and the worker shares unchanged memory. A
worker that cannot be forked is started as a normal process, so nothing waits for an interpreter. The other side is
`python_fork_server.py`. Linux only: it needs pidfds.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable, Sequence

from stepwell.local.runners.channel import Launch, launch_with_channel
from stepwell.local.runners.process import Ended, Process, Receive, Watched, kill_group, started

_NUMBER = struct.Struct(">i")
_FORK, _WAIT = b"f", b"w"
_READY = b"ready"
_PATIENCE_S = 10.0
_logger = logging.getLogger("stepwell.runners")

Answer = Callable[[int | None], None]  # None: the interpreter is gone


def can_fork() -> bool:
    """Whether this system can report the end of a process that is not a child of this one."""
    if sys.platform != "linux":
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):  # before Linux 5.3
        return False
    return True


class ForkServer:
    """An interpreter process. It answers requests in order."""

    def __init__(self, launch: Launch[Process], gone: Callable[[ForkServer], None]) -> None:
        """Starts the process. Raises OSError. `gone(self)` is called once, when it has ended."""
        self._loop = asyncio.get_running_loop()
        self._gone = gone
        self._answers: deque[Answer] = deque()
        self.is_ready = self.was_ready = self.is_doomed = False
        self.children = self._requested = self._answered = 0
        self.used_at = self._loop.time()
        kind = socket.SOCK_SEQPACKET  # preserves message boundaries
        self._socket, self._process = launch_with_channel(launch, self._log, self._ended, kind)
        self._loop.add_reader(self._socket, self._readable)

    @property
    def pid(self) -> int:
        return self._process.pid

    def fork(self, descriptors: Sequence[int], answer: Answer) -> None:
        """Forks a child with these descriptors only. The answer is the process id, or a negative error number.

        Raises OSError if the socket cannot take the request now."""
        passed = array.array("i", descriptors)
        self._socket.sendmsg([_FORK], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
        self._answers.append(answer)
        self.children += 1
        self.used_at = self._loop.time()
        self._requested += 1
        self._loop.call_later(_PATIENCE_S, self._expect, self._requested)

    def wait(self, pid: int, answer: Answer) -> None:
        """Requests the wait status of a child that has ended."""
        self.children -= 1
        try:
            self._socket.send(_WAIT + _NUMBER.pack(pid))
        except OSError:
            answer(None)
        else:
            self._requested += 1
            self._answers.append(answer)

    def kill(self) -> None:
        self.is_ready, self.is_doomed = False, True
        self._process.kill()

    def _expect(self, number: int) -> None:
        """Kills an interpreter that has not answered `number` requests in time: it would block all others."""
        if self._answered < number:
            self.kill()

    def _readable(self) -> bool:
        try:
            message = self._socket.recv(64)
        except BlockingIOError:
            return False
        except OSError:
            message = b""
        if not message:
            self.is_ready = False
            self._loop.remove_reader(self._socket)
        elif message == _READY:
            self.is_ready = self.was_ready = True
        elif len(message) == _NUMBER.size and self._answers:
            self._answered += 1
            self._answers.popleft()(_NUMBER.unpack(message)[0])
        else:
            self.kill()
        return bool(message)

    def _log(self, stream: str, piece: bytes) -> None:
        _logger.warning("the interpreter of Python workers printed: %s", piece.decode(errors="replace").rstrip())

    def _ended(self, code: int) -> None:
        while self._readable():
            pass
        self.is_ready = False
        self._loop.remove_reader(self._socket)
        self._socket.close()
        while self._answers:
            self._answers.popleft()(None)
        self._gone(self)


class ForkedProcess(Watched):
    """A process forked by a fork server. It starts some time after the request."""

    def __init__(self, server: ForkServer, channel: int, receive: Receive, ended: Ended) -> None:
        """Requests the process. `channel` is the one descriptor it gets besides the streams. Raises OSError."""
        super().__init__(receive, ended)
        self._server = server
        self._is_doomed = False
        self.pid = 0  # until it is known
        streams = self._open_streams(os.devnull)
        try:
            server.fork([channel, *streams], self._forked)
        except OSError:
            self._discard(())
            raise
        finally:
            for descriptor in streams:
                os.close(descriptor)
        self._listen()

    def kill(self) -> None:
        """Kills the process and its group. Does nothing after the end."""
        self._is_doomed = True
        if self._pidfd >= 0:
            with contextlib.suppress(OSError):  # a very new process has no group yet
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            kill_group(self.pid)

    def _forked(self, pid: int | None) -> None:
        try:
            if pid is None or pid < 0:
                raise OSError(-(pid or -errno.ESRCH), "cannot be forked")
            self._pidfd = os.pidfd_open(pid)
        except OSError:
            self._finish(-signal.SIGKILL)
            return
        self.pid = pid
        started.add(pid)
        self._loop.add_reader(self._pidfd, self._died)
        if self._is_doomed:
            self.kill()

    def _died(self) -> None:
        kill_group(self.pid)
        self._close_pidfd()
        self._server.wait(self.pid, self._waited)

    def _waited(self, status: int | None) -> None:
        if status is None:  # the parent is gone; the process may have become a child of this one
            with contextlib.suppress(ChildProcessError):
                pid, found = os.waitpid(self.pid, os.WNOHANG)
                status = found if pid else None
        started.remove(self.pid)
        self._finish(-signal.SIGKILL if status is None else os.waitstatus_to_exitcode(status))

"""A warm process that runs one step's code, one invocation at a time: a Lambda handler, or what a subclass runs.

An invocation ends once: with the worker's answer, or with the worker's death. Output printed before the answer is in
the log before the end is reported. The other side of the protocol is in `python_worker.py` and `node_worker.js`.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable
from typing import Protocol

from stepwell.core.run.messages import Outcome
from stepwell.core.run.outcome import failure, from_exit, from_output, read_json, timed_out, too_large
from stepwell.local.runners.channel import Launch, launch_with_channel
from stepwell.local.runners.job import End, Log
from stepwell.local.runners.program import STOPPED

_REQUEST = struct.Struct(">IQ")
_ANSWER = struct.Struct(">Ic")
_PIECE = 512 * 1024  # more than an output may have
_LONG = 64 * 1024  # bytes; longer events are sent without copying them
MOST_GREETING = 64 * 1024  # less than a new socket takes at once
_LARGEST = 2 * 1024 * 1024  # of an answer; no worker script sends more


class WorkerProcess(Protocol):
    """The interface of a worker's process."""

    pid: int

    def kill(self) -> None: ...

    def drain(self) -> None: ...


class Worker:
    """A worker. `died(worker)` is called once, after the last invocation has ended."""

    LASTING: tuple[bytes, ...] = (b"o", b"l", b"e")  # the kinds of answers after which the process is used again

    def __init__(
        self,
        launch: Launch[WorkerProcess],
        ended: Callable[[Worker], None],
        died: Callable[[Worker], None],
        greeting: bytes = b"",
    ) -> None:
        """Starts the process with `launch`. Raises OSError. The process reads `greeting` before all requests; it has at
        most MOST_GREETING bytes."""
        self._ended, self._died = ended, died
        self._loop = asyncio.get_running_loop()
        self._invocation: Invocation | None = None
        self._unsent = memoryview(b"")
        self._answer = _Answer()
        self._is_doomed = False
        self._socket, self._process = launch_with_channel(launch, self._log, self._exited, greeting=greeting)
        self._loop.add_reader(self._socket, self._readable)

    @property
    def is_idle(self) -> bool:
        return self._invocation is None and not self._is_doomed

    @property
    def pid(self) -> int:
        return self._process.pid

    def runs(self, invocation: Invocation) -> bool:
        return self._invocation is invocation

    def kill(self) -> None:
        self._is_doomed = True
        self._process.kill()

    def invoke(self, event: bytes, timeout_ms: int, log: Log, end: End) -> Invocation | None:
        """Runs the handler. Returns None if the worker is gone; then nothing was run, and `end` will not be called."""
        head = _REQUEST.pack(len(event), timeout_ms)
        try:
            sent = self._socket.send(head + event) if len(event) < _LONG else self._socket.sendmsg((head, event))
        except BlockingIOError:
            sent = 0
        except OSError:
            self.kill()
            return None
        if sent < len(head) + len(event):
            self._unsent = memoryview(head + event)[sent:]
            self._loop.add_writer(self._socket, self._writable)
        self._invocation = Invocation(self, self._loop, timeout_ms, log, end)
        return self._invocation

    def _writable(self) -> None:
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            return
        except OSError:  # the process is dead, which `_exited` handles
            self._unsent = memoryview(b"")
        if not self._unsent:
            self._loop.remove_writer(self._socket)

    def _readable(self) -> bool:
        """Receives a piece of the answer. Returns False if there was none."""
        try:
            piece = self._socket.recv(_PIECE)
        except BlockingIOError:
            return False
        except OSError:
            piece = b""
        if not piece:  # the worker has closed the socket and can never answer again
            self._loop.remove_reader(self._socket)
            self.kill()
            return False
        answer = self._answer
        answer.add(piece)
        if answer.length > _LARGEST or self._invocation is None:
            self.kill()
            return False
        if answer.is_whole:
            self._answer = _Answer()
            self._answered(answer.kind, answer.text())
        return True

    def _answered(self, kind: bytes, text: bytes) -> None:
        self._process.drain()
        if kind not in self.LASTING or self._unsent:
            self.kill()  # the worker has no handler, or violates the protocol
        self._finish(self._outcome(kind, text))

    def _log(self, stream: str, piece: bytes) -> None:
        if self._invocation is not None:
            self._invocation.log(stream, piece)

    def _finish(self, outcome: Outcome) -> None:
        invocation, self._invocation = self._invocation, None
        if invocation is not None:
            invocation.timer.cancel()
            outcome = invocation.verdict or outcome
            self._log_rest(invocation, outcome)
            self._ended(self)
            invocation.end(outcome)

    def _log_rest(self, invocation: Invocation, outcome: Outcome) -> None:
        """Logs output that is not in the outcome. Of a handler, there is none."""

    def _outcome(self, kind: bytes, text: bytes) -> Outcome:
        """The outcome that an answer contains."""
        return _outcome(kind, text)

    def _crash(self, code: int) -> Outcome:
        """The outcome if the process has ended before it answered."""
        return _crash(code)

    def _exited(self, code: int) -> None:
        self._is_doomed = True
        while self._invocation is not None and self._readable():
            pass  # it may have answered before it died
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self._finish(self._crash(code))
        self._died(self)


class _Answer:
    """The received part of an answer. An answer that comes in one piece is copied once. `length` is the length of the
    text, 0 until it is known."""

    __slots__ = ("_pieces", "_size", "kind", "length")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = self.length = 0
        self.kind = b""

    def add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if not self.kind and self._size >= _ANSWER.size:
            self._pieces = [b"".join(self._pieces)]
            self.length, self.kind = _ANSWER.unpack_from(self._pieces[0])

    @property
    def is_whole(self) -> bool:
        return bool(self.kind) and self._size >= _ANSWER.size + self.length

    def text(self) -> bytes:
        first, *rest = self._pieces
        return b"".join((memoryview(first)[_ANSWER.size :], *rest)) if rest else first[_ANSWER.size :]


class Invocation:
    """One run of a handler."""

    __slots__ = ("_worker", "end", "log", "timer", "verdict")

    def __init__(self, worker: Worker, loop: asyncio.AbstractEventLoop, timeout_ms: int, log: Log, end: End) -> None:
        self._worker, self.log, self.end = worker, log, end
        self.verdict: Outcome | None = None
        self.timer = loop.call_later(timeout_ms / 1000, self._expire, timeout_ms)

    def stop(self) -> None:
        self._kill(STOPPED)

    def _expire(self, timeout_ms: int) -> None:
        self._kill(timed_out(timeout_ms))

    def _kill(self, verdict: Outcome) -> None:
        if self._worker.runs(self) and self.verdict is None:
            self.verdict = verdict
            self._worker.kill()


def _outcome(kind: bytes, text: bytes) -> Outcome:
    now = time.time_ns() // 1_000_000
    match kind:
        case b"o":
            return from_output(read_json(text), now)
        case b"l" if text.isdigit():
            return from_output(too_large(int(text)), now)
        case b"e" | b"i":
            return failure("exception", text.decode("utf-8", "replace"))
        case b"s":
            return failure("start", text.decode("utf-8", "replace"), retryable=False)
    return failure("crash", "the worker's answer is not valid: did the handler write to the worker's socket?")


def _crash(code: int) -> Outcome:
    """The outcome if the process ended before the handler returned, whatever the exit code."""
    if code < 0:
        return from_exit(code, read_json(b"null"), "", 0)
    return failure("crash", f"the handler's process ended with exit code {code} before the handler returned")

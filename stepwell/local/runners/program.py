"""Steps that are programs, found by their command or by convention, each run in a process of its own.

This module decides what runs with which input; `process` controls the process itself.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from stepwell.core.plan import Step
from stepwell.core.run.messages import Outcome
from stepwell.core.run.outcome import ParsedOutput, failure, from_exit, not_in_output, printable, timed_out
from stepwell.local.runners.environment import environment
from stepwell.local.runners.job import CannotRun, End, Job, Log, Running
from stepwell.local.runners.process import Process, Program
from stepwell.local.runners.scratch import Folder, Scratch
from stepwell.local.runners.stdout import StdoutReader
from stepwell.project.code import CodeError
from stepwell.project.convention import entry

MAX_ARGUMENT_BYTES = 96 * 1024  # Linux allows 128 KiB for one argument
STOPPED = failure("stopped", "stopped before it ended", retryable=False)
TAIL = 4096  # bytes of stderr, for a message
_EXHAUSTED = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC})

Judge = Callable[[int, ParsedOutput, str, int], Outcome]
Unreceived = Callable[[Mapping[str, int]], Iterable[tuple[str, bytes]]]


class ProgramRunner:
    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self._user = scratch.user

    def start(self, job: Job, log: Log, end: End, command: Sequence[str] | None = None) -> Running:
        """Runs the step's program, or `command` instead of it."""
        folder = None
        try:
            folder = self._scratch.new(job.input)
            env = environment(job, folder.tmp, self._user)
            name, *words = command or command_of(job.step, job.code)
            file = locate(name, env["PATH"], job.code)
            if self._user is not None:
                file = name  # to be found on PATH as that user
            env["STEPWELL_INPUT"] = folder.input
            return Execution(
                Program(
                    [file, *words, argument(job.input, folder.input)], str(job.code), env, folder.input, user=self._user
                ),
                log,
                functools.partial(self._end, folder, end),
                timeout_ms=job.step.timeout_ms,
            )
        except (CannotRun, OSError) as error:
            if folder is not None:
                self._scratch.remove(folder)
            return NotStarted(start_failure(error), end)

    def _end(self, folder: Folder, end: End, outcome: Outcome) -> None:
        self._scratch.remove(folder)
        end(outcome)

    async def close(self) -> None:
        """Does nothing: no state is kept between attempts."""


class NotStarted:
    """An attempt that could not be started."""

    def __init__(self, outcome: Outcome, end: End) -> None:
        asyncio.get_running_loop().call_soon(end, outcome)

    def stop(self) -> None: ...


class Execution:
    """A running program. The constructor raises OSError if it cannot be started; otherwise `end` is called once."""

    def __init__(
        self,
        program: Program,
        log: Log,
        end: End,
        *,
        timeout_ms: int | None,
        judge: Judge = from_exit,
        unreceived: Unreceived = lambda received: (),
    ) -> None:
        """`unreceived` returns output that was printed but not received, given the received bytes by stream."""
        self._log, self._end, self._judge, self._unreceived = log, end, judge, unreceived
        self._received = {"stdout": 0, "stderr": 0}
        self._stdout = StdoutReader(log)
        self._tail = b""
        self._verdict: Outcome | None = None
        self._process = Process(program, self._receive, self._ended)
        self._timer: asyncio.TimerHandle | None = None
        if timeout_ms is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(timeout_ms / 1000, self._expire, timeout_ms)

    def stop(self) -> None:
        self._kill(STOPPED)

    def _expire(self, timeout_ms: int) -> None:
        self._kill(timed_out(timeout_ms))

    def _kill(self, verdict: Outcome) -> None:
        self._verdict = self._verdict or verdict
        self._process.kill()

    def _receive(self, stream: str, piece: bytes) -> None:
        self._received[stream] += len(piece)
        if stream == "stdout":
            self._stdout.feed(piece)
        else:
            self._tail = (self._tail + piece)[-TAIL:]
            self._log("stderr", piece)

    def _ended(self, code: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for stream, piece in self._unreceived(dict(self._received)):
            self._receive(stream, piece)
        report = self._stdout.finish()
        outcome = self._verdict or self._judge(code, report, last_line(self._tail), time.time_ns() // 1_000_000)
        if rest := not_in_output(report, outcome):
            self._log("stdout", rest)
        self._end(outcome)


# --- what to run -----------------------------------------------------------------------------------------------------


def command_of(step: Step, code: Path | None) -> tuple[str, ...]:
    """The step's program and arguments. Raises CannotRun."""
    if step.runtime.arn is not None:
        raise CannotRun(f"{step.runtime.arn} is a Lambda on AWS; `stepwell push` takes the function there")
    if code is None:
        raise CannotRun("the step has no code; give it a `path`")
    return step.runtime.command or _by_convention(str(code), step.path.rpartition("/")[2])


@functools.lru_cache(maxsize=4096)
def _by_convention(folder: str, name: str) -> tuple[str, ...]:
    """The command by convention. `name` is the last part of the step's path.

    Results are cached: a folder never changes, because it is named by the hash of the contents."""
    try:
        is_file = [(path.name, path.is_file()) for path in Path(folder).iterdir()] == [(name, True)]
        return entry(Path(folder), name if is_file else None)
    except (CodeError, OSError) as error:
        raise CannotRun(str(error)) from None


_located: dict[tuple[str, str], str] = {}


def locate(name: str, path: str, code: Path | None) -> str:
    """The program's file, found as by a shell in the step's folder. Raises CannotRun with the reason."""
    if "/" in name:
        file = Path(code or "/", name)
        if not file.is_file():
            raise CannotRun(f"there is no file {name} in the step's code; correct the command")
        if not os.access(file, os.X_OK):
            raise CannotRun(f"{name} is not executable; run chmod +x on it")
        return name
    found = _located.get((name, path))
    if found is None or not os.access(found, os.X_OK):
        found = shutil.which(name, path=path)
        if found is None:
            here = f", or write ./{name} for the one in the step's folder" if code and (code / name).is_file() else ""
            raise CannotRun(f"found no program {name!r} on PATH ({path}); install it{here}")
        _located[name, path] = found
    return found


def argument(content: bytes, file: str) -> bytes:
    """The input as the program's last argument."""
    return content if len(content) <= MAX_ARGUMENT_BYTES else b"@" + os.fsencode(file)


def start_failure(error: BaseException) -> Outcome:
    """The outcome of an attempt that could not be started."""
    if isinstance(error, CannotRun):
        return failure("start", str(error), retryable=False)
    if not isinstance(error, OSError):
        return failure("start", f"internal error: {error!r}")
    cure = {
        errno.ENOEXEC: "; a script needs a first line such as #!/bin/sh",
        errno.ENOENT: "; does its first line (#!) name a program that is here?",
        errno.EACCES: "; check that the user of steps may reach and execute it",
        errno.E2BIG: "; its arguments or environment variables are too large",
    }.get(error.errno or 0, "")
    message = f"cannot be started: {error.strerror or error}{cure}"
    return failure("start", message, retryable=error.errno in _EXHAUSTED)


def last_line(text: bytes) -> str:
    """The last line that is not blank, for a message."""
    return printable(text.rstrip().rpartition(b"\n")[2][-500:].decode("utf-8", "replace")).strip()

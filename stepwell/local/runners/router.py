"""The server's runner: chooses the runner of each attempt by the step's runtime.

Whatever happens inside, an attempt ends exactly once, with a log of at most 4 MiB.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from stepwell.core.plan import Step
from stepwell.core.run.messages import Outcome
from stepwell.core.run.outcome import failure
from stepwell.local.code.keeper import CodeKeeper
from stepwell.local.runners import celery
from stepwell.local.runners.celery import CeleryRunner
from stepwell.local.runners.checked import CheckedAttempt
from stepwell.local.runners.container import ContainerRunner, dockerfile_of, local_command
from stepwell.local.runners.environment import search_path
from stepwell.local.runners.faktory import FaktoryRunner
from stepwell.local.runners.handler import HandlerRunner
from stepwell.local.runners.http import HttpRunner
from stepwell.local.runners.job import CannotRun, End, Job, Log, RemoteRunner, Runner, Running
from stepwell.local.runners.program import NotStarted, ProgramRunner, command_of, locate
from stepwell.local.runners.scratch import Scratch
from stepwell.local.runners.wasm import WasmRunner
from stepwell.local.runners.wasm_cache import FOLDER as COMPILED
from stepwell.local.runners.worker_command import module_file
from stepwell.local.system.step_user import StepUser

MAX_LOG_BYTES = 4 * 1024 * 1024
_CUT = b"\nthe log is cut here: an attempt keeps at most 4 MiB\n"
_logger = logging.getLogger("stepwell.runners")


class Runners:
    """All runners of one server; itself a `Runner`."""

    def __init__(
        self,
        *,
        no_containers: bool = False,
        code: CodeKeeper | None = None,
        user: StepUser | None = None,
        database: Callable[[], str] = lambda: "",
        compiled: Path | None = None,
    ) -> None:
        """`code` verifies the code of steps; None: no checks. `user` is the user that programs and handlers run as, if
        not the server's. `database` returns the database's name, which tells servers apart that share a broker.
        `compiled` is the folder of compiled modules; None: one in the folder of code."""
        self._no_containers, self._code = no_containers, code
        self._scratch = Scratch(user)
        self._containers_scratch = Scratch()
        self._programs = ProgramRunner(self._scratch)
        self._handlers = HandlerRunner(self._scratch)
        self._containers = ContainerRunner(self._containers_scratch, self._programs, no_containers=no_containers)
        self._http = HttpRunner()
        self.faktory = FaktoryRunner()
        self.remote: dict[str, RemoteRunner] = {"celery": CeleryRunner(database), "faktory": self.faktory}
        self._wasm = WasmRunner(self._scratch, compiled or (code.folder / COMPILED if code else None))
        self._attempts: set[_Attempt] = set()
        self._turn = asyncio.Lock()  # of attempts whose code was verified: see CheckedAttempt
        self._unchanged: set[str] = set()  # hashes of code that was checked in this iteration of the event loop
        self._all_ended: asyncio.Future[None] | None = None

    def start(self, job: Job, log: Log, end: End) -> Running:
        attempt = _Attempt(self, end)
        self._attempts.add(attempt)
        try:
            attempt.running = self._start(job, _Log(log), attempt.end)
        except Exception as error:  # an internal error must not stop the server
            _logger.exception("step %s of run %s could not be started", job.step.id, job.run_id)
            attempt.running = NotStarted(failure("start", f"internal error: {error!r}"), attempt.end)
        return attempt.running

    def start_remote(self, job: Job, log: Log, end: End, accepted: Callable[[], None]) -> Running:
        return self.remote[job.step.runtime.type].start_remote(job, _Log(log), end, accepted)

    def resume(self, job: Job, log: Log, end: End) -> Running:
        return self.remote[job.step.runtime.type].resume(job, _Log(log), end)

    def _start(self, job: Job, log: Log, end: End) -> Running:
        begin = partial(self._runner_of(job.step).start, job, log, end)
        if self._code is None or job.code_hash is None or self._is_unchanged(self._code, job.code_hash):
            return begin()
        return CheckedAttempt(
            partial(self._code.check, job.code_hash, job.function_id, job.version), begin, end, self._turn
        )

    def _is_unchanged(self, code: CodeKeeper, code_hash: str) -> bool:
        """Whether the code is unchanged. Checked once per iteration of the event loop, for all attempts that start."""
        if code_hash in self._unchanged:
            return True
        if not code.is_unchanged(code_hash):
            return False
        if not self._unchanged:
            asyncio.get_running_loop().call_soon(self._unchanged.clear)
        self._unchanged.add(code_hash)
        return True

    def forget(self, attempt: _Attempt) -> bool:
        """Removes an attempt that has ended. Returns False if it was removed before."""
        if attempt not in self._attempts:
            return False
        self._attempts.remove(attempt)
        if self._all_ended is not None and not self._attempts:
            self._all_ended.set_result(None)
        return True

    def _runner_of(self, step: Step) -> Runner:
        runtime = step.runtime
        if runtime.type == "lambda":
            return self._programs if runtime.handler is None else self._handlers
        if runtime.type == "wasm":
            return self._wasm
        return self._http if runtime.type == "http" else self._containers

    def check(self, step: Step, code: Path | None) -> str | None:
        """Why this machine cannot run the step, with the fix; None if it can."""
        try:
            self._check(step, code)
        except CannotRun as reason:
            return str(reason)
        return None

    def _check(self, step: Step, code: Path | None) -> None:
        runtime, path = step.runtime, search_path(code)
        if runtime.type == "docker" and self._no_containers:
            locate(local_command(step, code)[0], path, code)
        elif runtime.type == "docker":
            self._containers.engine()
            if runtime.image is None:
                dockerfile_of(code or Path("/"))
        elif runtime.type == "lambda" and runtime.handler is not None:
            if code is None or module_file(code, runtime.handler).suffix != ".py":
                locate("node", path, code)
        elif runtime.type == "lambda":
            locate(command_of(step, code)[0], path, code)
        elif runtime.type == "celery":
            celery.check(runtime)
        elif runtime.type == "wasm" and (reason := self._wasm.check(step, code)):
            raise CannotRun(reason)
        elif runtime.type == "faktory":
            self.faktory.check()

    async def close(self) -> None:
        """Kills all running attempts, and waits until they and their files are gone."""
        for attempt in list(self._attempts):
            if attempt.running is not None:
                attempt.running.stop()
        if self._attempts:
            self._all_ended = asyncio.get_running_loop().create_future()
            await self._all_ended
        own: tuple[Runner, ...] = (self._containers, self._http, self._handlers, self._wasm, self._programs)
        for runner in (*own, *self.remote.values()):
            await runner.close()
        for scratch in (self._scratch, self._containers_scratch):
            await scratch.close()


class _Attempt:
    """A running attempt, whose end is reported once."""

    __slots__ = ("_end", "_runners", "running")

    def __init__(self, runners: Runners, end: End) -> None:
        self._runners, self._end = runners, end
        self.running: Running | None = None

    def end(self, outcome: Outcome) -> None:
        if self._runners.forget(self):
            self.running = None  # breaks a reference cycle, which would stay in memory until a garbage collection
            self._end(outcome)


class _Log:
    """Passes on what fits into an attempt's log."""

    __slots__ = ("_left", "_log")

    def __init__(self, log: Log) -> None:
        self._log, self._left = log, MAX_LOG_BYTES

    def __call__(self, stream: str, text: bytes, /) -> None:
        if len(text) <= self._left:
            self._left -= len(text)
            self._log(stream, text)
        elif self._left >= 0:
            if self._left:
                self._log(stream, text[: self._left])
            self._left = -1
            self._log("system", _CUT)

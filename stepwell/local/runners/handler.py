"""Steps that are native Lambda handlers (`module.function`), run in warm worker processes.

A worker serves one key only (function, code, handler, environment, memory), so that no step sees another's state.
"""

from __future__ import annotations

import asyncio
import resource
from functools import partial
from pathlib import Path
from typing import Any

from stepwell.core.run.outcome import failure
from stepwell.local.runners.environment import environment
from stepwell.local.runners.fork_server import ForkedProcess
from stepwell.local.runners.idle import IdleWorkers, Place
from stepwell.local.runners.interpreters import Interpreters
from stepwell.local.runners.job import CannotRun, End, Job, Log, Running
from stepwell.local.runners.program import NotStarted, start_failure
from stepwell.local.runners.scratch import Folder, Scratch
from stepwell.local.runners.worker import MOST_GREETING, Worker
from stepwell.local.runners.worker_command import (
    SCRIPTS,
    Handler,
    find_handler,
    lambda_variables,
    python_for_handler,
    spawn,
    worker_command,
    worker_task,
)
from stepwell.local.system.cpus import usable_cpus
from stepwell.local.system.memory import private_bytes, usable_memory

_HERE = Path(__file__).parent
_LONGEST_IDLE_S = 300.0
_SWEEP_S = 30.0
_MOST_IDLE = 128
_SHARE_OF_MEMORY = 0.25
_MEASURE_S = 60.0  # between two measurements of a worker, each of which takes the kernel 0.3 ms
_FILES = 32  # open files of the server's limit that count for each idle worker; it uses four

Key = tuple[Any, ...]


class HandlerRunner:
    def __init__(
        self,
        scratch: Scratch,
        most_idle: int | None = None,
        most_idle_bytes: int | None = None,
        always_idle: int | None = None,
    ) -> None:
        """The limits for idle workers: their number, and, beyond `always_idle`, the private memory of all of them
        together."""
        self._scratch, self._user = scratch, scratch.user
        always = always_idle or 4 * usable_cpus() + 4
        most_bytes = most_idle_bytes or int(_SHARE_OF_MEMORY * usable_memory())
        self._most_idle = most_idle
        self._idle = IdleWorkers[Worker](always, most_bytes, always)
        self._workers: dict[Worker, tuple[Place, Folder]] = {}
        self._interpreters = Interpreters(scratch)
        self._sweeper: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop  # set with the first worker; to get it takes a system call
        self._gone = asyncio.Event()

    def start(self, job: Job, log: Log, end: End) -> Running:
        runtime = job.step.runtime
        key = (
            job.code_hash or job.code,
            runtime.handler,
            runtime.memory,
            job.function_id,  # steps that share code, handler and settings share workers, as they share a Lambda
            tuple(job.env.items()),
        )
        while worker := self._idle.find(key):
            self._idle.remove(worker)
            if invocation := worker.invoke(job.input, job.step.timeout_ms, log, end):
                return invocation
        try:
            worker = self._launch(job, key)
        except (CannotRun, OSError) as error:
            return NotStarted(start_failure(error), end)
        return worker.invoke(job.input, job.step.timeout_ms, log, end) or NotStarted(
            failure("crash", "the handler's process ended at once"), end
        )

    def _launch(self, job: Job, key: Key) -> Worker:
        folder = self._scratch.new()
        try:
            handler = find_handler(job)
            env = environment(job, folder.tmp, self._user) | lambda_variables(job)
            worker = self._fork(job, handler, env) or self._spawn(handler, env)
        except (CannotRun, OSError):
            self._scratch.remove(folder)
            raise
        self._loop = asyncio.get_running_loop()
        self._workers[worker] = self._idle.open_place(key), folder
        self._idle.most = self._most_idle or max(self._idle.always, _most_idle())
        self._gone.clear()
        return worker

    def _fork(self, job: Job, handler: Handler, env: dict[str, str]) -> Worker | None:
        """A forked worker; None if the handler needs a new process."""
        if not handler.is_python:
            return None
        python = python_for_handler(handler, self._user)
        server = self._interpreters.find(python, handler.code, env, job.env, self._scripts())
        if server is None or len(task := worker_task(handler, env)) > MOST_GREETING:
            return None
        try:
            return Worker(partial(ForkedProcess, server), self._ended, self._died, task)
        except OSError:
            return None

    def _spawn(self, handler: Handler, env: dict[str, str]) -> Worker:
        command = worker_command(handler, env["PATH"], self._scripts(), self._user)
        launch = partial(spawn, command, str(handler.code), env, self._user)
        return Worker(launch, self._ended, self._died)

    def _scripts(self) -> Path:
        """The folder of the worker scripts. The user of steps may not be able to read Stepwell's installation."""
        return _HERE if self._user is None else self._scratch.publish(_HERE / name for name in SCRIPTS)

    # --- idle workers ------------------------------------------------------------------------------------------------

    def _ended(self, worker: Worker) -> None:
        if not worker.is_idle:
            return
        if self._interpreters.wanted:
            self._interpreters.start_wanted()
        now, (place, _) = self._loop.time(), self._workers[worker]
        self._idle.add(worker, place, now)
        if self._idle.are_too_many:
            self._retire_surplus(worker)
        if now - place.measured_at > _MEASURE_S:
            place.measured_at = now
            self._loop.call_soon(self._measure, worker)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(_SWEEP_S, self.sweep)

    def sweep(self, longest_idle_s: float = _LONGEST_IDLE_S) -> None:
        """Stops workers that have been idle for this long."""
        loop = asyncio.get_running_loop()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for worker in self._idle.waiting_since(loop.time() - longest_idle_s):
            self._retire(worker)
        self._interpreters.sweep(loop.time() - longest_idle_s)
        self._sweeper = loop.call_later(_SWEEP_S, self.sweep) if self._idle or self._interpreters else None

    def _measure(self, worker: Worker) -> None:
        if worker in self._workers:
            self._workers[worker][0].size = private_bytes(worker.pid)
            self._retire_surplus(worker)

    def _retire_surplus(self, newest: Worker) -> None:
        for surplus in self._idle.surplus(newest, asyncio.get_running_loop().time()):
            self._retire(surplus)

    def _retire(self, worker: Worker) -> None:
        self._idle.remove(worker)
        self._idle.close_place(self._workers[worker][0])
        worker.kill()

    def _died(self, worker: Worker) -> None:
        if worker in self._idle:
            self._idle.remove(worker)
        place, folder = self._workers.pop(worker)
        self._idle.close_place(place)
        self._scratch.remove(folder)
        if not self._workers:
            self._gone.set()

    async def close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for worker in list(self._workers):
            worker.kill()
        if self._workers:
            await self._gone.wait()
        await self._interpreters.close()


def _most_idle() -> int:
    """How many workers may be idle, given the limit of open files of this process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_IDLE if soft < 0 else min(_MOST_IDLE, soft // _FILES)

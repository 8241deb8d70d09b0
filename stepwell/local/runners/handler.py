"""Steps that are native Lambda handlers (`module.function`), run in warm worker processes.

A worker serves one key only (function, code, handler, environment, memory), so that no step sees another's state.
"""

from __future__ import annotations

from functools import partial

from stepwell.local.runners.environment import environment
from stepwell.local.runners.fork_server import ForkedProcess
from stepwell.local.runners.interpreters import Interpreters
from stepwell.local.runners.job import End, Job, Log, Running
from stepwell.local.runners.scratch import Folder, Scratch
from stepwell.local.runners.warm_workers import WarmWorkers
from stepwell.local.runners.worker import MOST_GREETING, Worker
from stepwell.local.runners.worker_command import (
    Handler,
    find_handler,
    lambda_variables,
    published_scripts,
    python_for_handler,
    spawn,
    worker_command,
    worker_task,
)


class HandlerRunner(WarmWorkers):
    def __init__(self, scratch: Scratch, **limits: int | None) -> None:
        """`limits`: those of WarmWorkers."""
        super().__init__(scratch, **limits)
        self._interpreters = Interpreters(scratch)

    def start(self, job: Job, log: Log, end: End) -> Running:
        runtime = job.step.runtime
        key = (
            job.code_hash or job.code,
            runtime.handler,
            runtime.memory,
            job.function_id,  # steps that share code, handler and settings share workers, as they share a Lambda
            tuple(job.env.items()),
        )
        return self._run(key, job, log, end)

    def _new_worker(self, job: Job, folder: Folder) -> Worker:
        handler = find_handler(job)
        env = environment(job, folder.tmp, self._user) | lambda_variables(job)
        return self._fork(job, handler, env) or self._spawn(handler, env)

    def _fork(self, job: Job, handler: Handler, env: dict[str, str]) -> Worker | None:
        """A forked worker; None if the handler needs a new process."""
        if not handler.is_python:
            return None
        python = python_for_handler(handler, self._user)
        server = self._interpreters.find(python, handler.code, env, job.env, published_scripts(self._scratch))
        if server is None or len(task := worker_task(handler, env)) > MOST_GREETING:
            return None
        try:
            return Worker(partial(ForkedProcess, server), self._ended, self._died, task)
        except OSError:
            return None

    def _spawn(self, handler: Handler, env: dict[str, str]) -> Worker:
        command = worker_command(handler, env["PATH"], published_scripts(self._scratch), self._user)
        launch = partial(spawn, command, str(handler.code), env, self._user)
        return Worker(launch, self._ended, self._died)

    def _rested(self) -> None:
        if self._interpreters.wanted:
            self._interpreters.start_wanted()

    def _sweep_others(self, moment: float) -> bool:
        self._interpreters.sweep(moment)
        return bool(self._interpreters)

    async def close(self) -> None:
        await super().close()
        await self._interpreters.close()

"""Steps that are native Lambda handlers: `module.function`, in warm worker processes.

One rule: a worker serves one key only (code, handler, environment, memory), so that no step sees another's state.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from pathlib import Path
from typing import Any

from stepwell.core.outcome import failure
from stepwell.local.cpus import usable_cpus
from stepwell.local.memory import private_bytes, usable_memory
from stepwell.local.runners.environment import environment
from stepwell.local.runners.idle import IdleWorkers, Place
from stepwell.local.runners.job import CannotRun, End, Job, Log, Running
from stepwell.local.runners.program import NotStarted, locate, why_not
from stepwell.local.runners.scratch import Folder, Scratch
from stepwell.local.runners.worker import Worker
from stepwell.local.step_user import StepUser, python_for
from stepwell.project.code import CodeError
from stepwell.project.convention import handler_file

_HERE = Path(__file__).parent
_SCRIPTS = ("python_worker.py", "python_marshal.py", "node_worker.js")
_DEFAULT_MEMORY = 128  # MB, what Lambda gives to a function that does not say
_LONGEST_IDLE_S = 300.0
_SWEEP_S = 30.0
_MOST_IDLE = 128
_SHARE_OF_MEMORY = 0.25
_MEASURE_S = 5.0
_FILES = 32  # open files that the server may have for each idle worker; it has four

Key = tuple[Any, ...]


class HandlerRunner:
    def __init__(
        self,
        scratch: Scratch,
        most_idle: int | None = None,
        most_idle_bytes: int | None = None,
        always_idle: int | None = None,
    ) -> None:
        """How many workers may wait for work; beyond `always_idle`, they may also have no more memory of their own
        than `most_idle_bytes` together."""
        self._scratch, self._user = scratch, scratch.user
        always = always_idle or 4 * usable_cpus() + 4
        most_bytes = most_idle_bytes or int(_SHARE_OF_MEMORY * usable_memory())
        self._most_idle = most_idle
        self._idle = IdleWorkers[Worker](always, most_bytes, always)
        self._workers: dict[Worker, tuple[Place, Folder]] = {}
        self._sweeper: asyncio.TimerHandle | None = None
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
            return NotStarted(why_not(error), end)
        return worker.invoke(job.input, job.step.timeout_ms, log, end) or NotStarted(
            failure("crash", "the handler's process ended at once"), end
        )

    def _launch(self, job: Job, key: Key) -> Worker:
        folder = self._scratch.new()
        try:
            env = environment(job, folder.tmp, self._user) | _lambda_variables(job)
            # The user may not be able to read where Stepwell is installed.
            scripts = _HERE if self._user is None else self._scratch.publish(_HERE / name for name in _SCRIPTS)
            command = worker_command(job, env["PATH"], scripts, self._user)
            worker = Worker(command, str(job.code), env, self._ended, self._died, self._user)
        except (CannotRun, OSError):
            self._scratch.remove(folder)
            raise
        self._workers[worker] = self._idle.open_place(key), folder
        self._idle.most = self._most_idle or max(self._idle.always, _most_idle())
        self._gone.clear()
        return worker

    # --- workers that wait -------------------------------------------------------------------------------------------

    def _ended(self, worker: Worker) -> None:
        if not worker.is_idle:
            return
        loop = asyncio.get_running_loop()
        now, (place, _) = loop.time(), self._workers[worker]
        if now - place.measured_at > _MEASURE_S:
            place.size, place.measured_at = private_bytes(worker.pid), now
        self._idle.add(worker, place, now)
        for surplus in self._idle.surplus(worker, now):
            self._retire(surplus)
        if self._sweeper is None:
            self._sweeper = loop.call_later(_SWEEP_S, self.sweep)

    def sweep(self, longest_idle_s: float = _LONGEST_IDLE_S) -> None:
        """Stop workers that have had no work for so long."""
        loop = asyncio.get_running_loop()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for worker in self._idle.waiting_since(loop.time() - longest_idle_s):
            self._retire(worker)
        self._sweeper = loop.call_later(_SWEEP_S, self.sweep) if self._idle else None

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


# --- what to run -----------------------------------------------------------------------------------------------------


def worker_command(job: Job, path: str, scripts: Path = _HERE, user: StepUser | None = None) -> list[str]:
    """The worker's command. `scripts`: where the workers are. Raises CannotRun if the handler's file or its interpreter
    is missing."""
    handler = job.step.runtime.handler or ""
    code = job.code
    if code is None:
        raise CannotRun("the step has no code; give it a `path`")
    module, _, function = handler.rpartition(".")
    file = module_file(code, handler)
    if file.suffix == ".py":
        own = code / ".venv/bin/python"
        python = str(own) if os.access(own, os.X_OK) else python_for(user) if user else sys.executable
        script = str(scripts / "python_worker.py")
        return [python, "-X", "faulthandler", script, "FD", str(code), module.replace("/", "."), function]
    found = locate("node", path, None)
    node = found if user is None else "node"  # the first one on PATH that this user may execute
    return [node, str(scripts / "node_worker.js"), "FD", str(code), str(file), function]


def module_file(code: Path, handler: str) -> Path:
    """The file that should hold a handler such as `app.handler`. Raises CannotRun."""
    try:
        return handler_file(code, handler)
    except CodeError as error:
        raise CannotRun(str(error)) from None


def _most_idle() -> int:
    """How many workers may wait with the number of files that this process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_IDLE if soft < 0 else min(_MOST_IDLE, soft // _FILES)


def _lambda_variables(job: Job) -> dict[str, str]:
    return {
        "AWS_LAMBDA_FUNCTION_NAME": job.function_id,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(job.step.runtime.memory or _DEFAULT_MEMORY),
        "LAMBDA_TASK_ROOT": str(job.code),
        "_HANDLER": job.step.runtime.handler or "",
    }

"""Steps that are WebAssembly modules, each run in a sandbox in a warm worker process.

The sandbox is the first wall and the process the second: to end an attempt, the process is killed. The other side is
`wasm_worker.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from stepwell.core.plan import Step
from stepwell.core.run.messages import Outcome
from stepwell.core.run.module_outcome import DEFAULT_MEMORY, from_module
from stepwell.core.run.outcome import ParsedOutput, failure, from_exit, not_in_output, read_json
from stepwell.local.runners.channel import Launch
from stepwell.local.runners.checked import PreparedAttempt
from stepwell.local.runners.job import CannotRun, End, Job, Log, Running
from stepwell.local.runners.program import TAIL, last_line
from stepwell.local.runners.scratch import Folder, Scratch
from stepwell.local.runners.stdout import StdoutReader
from stepwell.local.runners.warm_workers import Key, WarmWorkers
from stepwell.local.runners.wasm_cache import CompiledModules
from stepwell.local.runners.worker import Invocation, Worker, WorkerProcess
from stepwell.local.runners.worker_command import published_scripts, spawn
from stepwell.local.system.step_user import python_for
from stepwell.project.wasm_module import NAME

_MB = 1024 * 1024
_PREFIX = "STEP_"  # of the module's variables, in the process that runs it


class WasmRunner(WarmWorkers):
    def __init__(self, scratch: Scratch, cache: Path | None = None, **limits: int | None) -> None:
        """`cache` is the folder of compiled modules; None: a temporary one. `limits`: those of WarmWorkers."""
        super().__init__(scratch, **limits)
        self._compiled = CompiledModules(cache, scratch.user)
        self._turn = asyncio.Lock()  # of attempts whose module was compiled: see PreparedAttempt

    def start(self, job: Job, log: Log, end: End) -> Running:
        key = _key(job)
        if job.code_hash is not None and self._idle.find(key):  # the code is as when the worker has loaded it
            return self._run(key, job, log, end)
        begin = partial(self._run, key, job, log, end)
        if job.code is not None and self._find(job.step, job.code) is None:
            return PreparedAttempt(partial(self.check, job.step, job.code), begin, end, self._turn)
        return begin()

    def check(self, step: Step, code: Path | None) -> str | None:
        """Compiles the step's module, if needed. Returns why it cannot be run. Call it in a thread."""
        try:
            self._compiled.make(_module_of(step, code), has_fuel=step.runtime.fuel is not None)
        except CannotRun as reason:
            return str(reason)
        except OSError as error:
            return f"the module cannot be compiled: {error.strerror or error}"
        return None

    def _find(self, step: Step, code: Path) -> Path | None:
        return self._compiled.find(_module_of(step, code), has_fuel=step.runtime.fuel is not None)

    def _new_worker(self, job: Job, folder: Folder) -> Worker:
        runtime, module = job.step.runtime, _module_of(job.step, job.code)
        memory = runtime.memory or DEFAULT_MEMORY
        task = {
            "code": str(job.code),
            "module": str(module.relative_to(job.code or "/")),
            "compiled": str(self._find(job.step, job.code or Path("/")) or module),
            "memory": memory * _MB,
            "fuel": runtime.fuel,
        }
        python = python_for(self._user) if self._user else sys.executable
        script = published_scripts(self._scratch) / "wasm_worker.py"
        command = [python, "-I", "-X", "faulthandler", str(script), "FD", json.dumps(task)]
        env = {_PREFIX + name: value for name, value in job.env.items()}
        env |= {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "TMPDIR": folder.tmp}
        env["PYTHONDONTWRITEBYTECODE"] = "1"
        launch = partial(spawn, command, folder.tmp, env, self._user)
        return WasmWorker(launch, self._ended, self._died, memory)

    async def close(self) -> None:
        await super().close()
        self._compiled.close()


class WasmWorker(Worker):
    """A process that runs one module. What the module prints is read as a program's output."""

    LASTING = (b"x", b"t", b"f")

    def __init__(
        self,
        launch: Launch[WorkerProcess],
        ended: Callable[[Worker], None],
        died: Callable[[Worker], None],
        memory: int,
    ) -> None:
        """`memory`: the module's limit in MB. Raises OSError."""
        self._memory = memory
        self._stdout = StdoutReader(_no_log)
        self._report = read_json(b"null")
        self._tail = b""
        super().__init__(launch, ended, died)

    def invoke(self, event: bytes, timeout_ms: int, log: Log, end: End) -> Invocation | None:
        self._stdout, self._tail = StdoutReader(log), b""
        return super().invoke(event, timeout_ms, log, end)

    def _log(self, stream: str, piece: bytes) -> None:
        if stream == "stdout":
            self._stdout.feed(piece)
        else:
            self._tail = (self._tail + piece)[-TAIL:]
            super()._log(stream, piece)

    def _log_rest(self, invocation: Invocation, outcome: Outcome) -> None:
        if rest := not_in_output(self._report, outcome):
            invocation.log("stdout", rest)

    def _outcome(self, kind: bytes, text: bytes) -> Outcome:
        report = self._finish_stdout()
        now, line = time.time_ns() // 1_000_000, last_line(self._tail)
        return from_module(kind.decode(), text.decode("utf-8", "replace"), report, line, now, self._memory)

    def _crash(self, code: int) -> Outcome:
        report = self._finish_stdout()
        if code < 0:
            return from_exit(code, report, last_line(self._tail), 0)
        line = last_line(self._tail)
        return failure("crash", f"the module's process ended with exit code {code}{f': {line}' if line else ''}")

    def _finish_stdout(self) -> ParsedOutput:
        reader, self._stdout = self._stdout, StdoutReader(_no_log)
        self._report = reader.finish()
        return self._report


def _key(job: Job) -> Key:
    """What the attempts that a process may run have in common."""
    runtime = job.step.runtime
    variables = tuple(job.env.items())
    return job.code_hash or job.code, runtime.module, runtime.memory, runtime.fuel, job.function_id, variables


def _module_of(step: Step, code: Path | None) -> Path:
    """The file of the step's module. Raises CannotRun."""
    if code is None:
        raise CannotRun("the step has no code; give it a `path`")
    return code / (step.runtime.module or NAME)


def _no_log(stream: str, text: bytes, /) -> None:
    """The log of a worker that runs nothing."""

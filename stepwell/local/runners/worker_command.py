"""The command of a worker: the handler's file, the interpreter, and the arguments."""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stepwell.local.runners.job import CannotRun, Job
from stepwell.local.runners.process import Ended, Process, Program, Receive
from stepwell.local.runners.program import locate
from stepwell.local.runners.scratch import Scratch
from stepwell.local.system.step_user import StepUser, python_for
from stepwell.project.code import CodeError
from stepwell.project.convention import handler_file

SCRIPTS = ("python_worker.py", "python_marshal.py", "python_fork_server.py", "node_worker.js", "wasm_worker.py")
_HERE = Path(__file__).parent
_DEFAULT_MEMORY = 128  # MB, Lambda's default


@dataclass(frozen=True, slots=True)
class Handler:
    """A handler such as `app.handler` in a step's code. `file` is in `code`."""

    code: Path
    file: Path
    module: str
    function: str

    @property
    def is_python(self) -> bool:
        return self.file.suffix == ".py"


def find_handler(job: Job) -> Handler:
    """The handler of a job. Raises CannotRun if the handler's file is missing."""
    name = job.step.runtime.handler or ""
    if job.code is None:
        raise CannotRun("the step has no code; give it a `path`")
    module, _, function = name.rpartition(".")
    return Handler(job.code, module_file(job.code, name), module.replace("/", "."), function)


def module_file(code: Path, handler: str) -> Path:
    """The file that should contain a handler such as `app.handler`. Raises CannotRun."""
    try:
        return handler_file(code, handler)
    except CodeError as error:
        raise CannotRun(str(error)) from None


def python_for_handler(handler: Handler, user: StepUser | None) -> str:
    """The interpreter of a Python handler: the one in the step's code, or the server's."""
    own = handler.code / ".venv/bin/python"
    return str(own) if os.access(own, os.X_OK) else python_for(user) if user else sys.executable


def published_scripts(scratch: Scratch) -> Path:
    """The folder of the worker scripts. The user of steps may not be able to read Stepwell's installation."""
    return _HERE if scratch.user is None else scratch.publish(_HERE / name for name in SCRIPTS)


def python_command(python: str, script: Path, *arguments: str) -> list[str]:
    """The command that runs one of the worker scripts. `FD` stands for the descriptor of the socket."""
    return [python, "-X", "faulthandler", str(script), "FD", *arguments]


def worker_command(handler: Handler, path: str, scripts: Path, user: StepUser | None) -> list[str]:
    """The command of a worker's process. `scripts` is the folder of the worker scripts. Raises CannotRun if there is no
    interpreter."""
    code, function = str(handler.code), handler.function
    if handler.is_python:
        script = scripts / "python_worker.py"
        return python_command(python_for_handler(handler, user), script, code, handler.module, function)
    found = locate("node", path, None)
    node = found if user is None else "node"  # the first one on PATH that this user may execute
    return [node, str(scripts / "node_worker.js"), "FD", code, str(handler.file), function]


def worker_task(handler: Handler, env: Mapping[str, str]) -> bytes:
    """The message that a forked worker reads first: a `>I` length, then the worker's task as JSON."""
    names = {"code": str(handler.code), "module": handler.module, "function": handler.function}
    task = json.dumps({**names, "env": env}).encode()  # values of variables need not be UTF-8
    return struct.pack(">I", len(task)) + task


def spawn(
    command: Sequence[str],
    cwd: str,
    env: Mapping[str, str],
    user: StepUser | None,
    channel: int,
    receive: Receive,
    ended: Ended,
) -> Process:
    """Starts a command with the descriptor `channel`, which replaces `FD` in it. Raises OSError."""
    argv = [str(channel) if word == "FD" else word for word in command]
    return Process(Program(argv, cwd, env, pass_fds=(channel,), user=user), receive, ended)


def lambda_variables(job: Job) -> dict[str, str]:
    return {
        "AWS_LAMBDA_FUNCTION_NAME": job.function_id,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(job.step.runtime.memory or _DEFAULT_MEMORY),
        "LAMBDA_TASK_ROOT": str(job.code),
        "_HANDLER": job.step.runtime.handler or "",
    }

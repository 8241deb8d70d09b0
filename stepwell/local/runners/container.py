"""Steps in containers, run by docker or podman, whichever is installed and works.

Each container has a unique name, by which it is killed. If only the client were killed, the container would run on.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import uuid
from collections.abc import Coroutine, Iterator, Mapping
from functools import partial
from pathlib import Path

from stepwell.core.plan import Step
from stepwell.core.run.messages import Outcome
from stepwell.core.run.outcome import ParsedOutput, failure, from_exit
from stepwell.local.runners.image import READ_BY_CLIENTS, Image, NoImage, client_environment, find_engine, run_engine
from stepwell.local.runners.job import CannotRun, End, Job, Log, Running
from stepwell.local.runners.process import Program
from stepwell.local.runners.program import MAX_ARGUMENT_BYTES, Execution, NotStarted, ProgramRunner, start_failure
from stepwell.local.runners.scratch import Folder, Scratch
from stepwell.local.runners.task import TaskAttempt
from stepwell.project.code import CodeError
from stepwell.project.convention import dockerfile, dockerfile_entry

_INPUT = "/stepwell/input.json"
_ENGINE_FAILED = 125
_MOST_PRINTED = "max-size=16mb"  # that podman's monitor keeps; older text is dropped


class ContainerRunner:
    def __init__(self, scratch: Scratch, programs: ProgramRunner, *, no_containers: bool = False) -> None:
        """With `no_containers`, the Dockerfile's command runs as a local program, without the image."""
        self._scratch, self._programs, self._no_containers = scratch, programs, no_containers
        self._engine: str | None = None
        self._images: dict[str, Image] = {}

    def engine(self) -> str:
        """The engine's path. Blocks for a moment the first time. Raises CannotRun."""
        self._engine = self._engine or find_engine()
        return self._engine

    def start(self, job: Job, log: Log, end: End) -> Running:
        if not self._no_containers:
            return TaskAttempt(partial(self._run, job, log), job.step.timeout_ms, end)
        try:
            command = local_command(job.step, job.code)
        except CannotRun as error:
            return NotStarted(start_failure(error), end)
        log("system", b"--no-containers: runs as a local program, without its image\n")
        return self._programs.start(job, log, end, command)

    async def _run(self, job: Job, log: Log) -> Outcome:
        engine = await asyncio.to_thread(self.engine) if self._engine is None else self._engine
        tag, dockerfile = image_of(job)
        image = self._images.get(tag)
        if image is None:
            image = self._images[tag] = Image(engine, tag, dockerfile)
        try:
            command = await image.command(log)
        except (NoImage, OSError) as error:
            self._forget(tag, image)
            return failure("start", f"{error} (--no-containers runs the step as a local program)")
        folder = self._scratch.new(job.input)
        try:
            outcome = await _execute(engine, tag, command, job, folder, log)
        finally:
            self._scratch.remove(folder)
        if outcome.error is not None and outcome.error.kind == "start":
            self._forget(tag, image)  # the image may be gone
        return outcome

    def _forget(self, tag: str, image: Image) -> None:
        if self._images.get(tag) is image:
            del self._images[tag]

    async def close(self) -> None:
        for image in self._images.values():
            await image.close()


async def _execute(engine: str, image: str, command: tuple[str, ...], job: Job, folder: Folder, log: Log) -> Outcome:
    name = f"stepwell-{uuid.uuid4().hex}"
    options, env = variables(job, f"{folder.tmp}/env")
    printed = Path(folder.tmp, "printed")
    is_podman = Path(engine).name == "podman"
    driver = ["k8s-file", "--log-opt", f"path={printed}", "--log-opt", _MOST_PRINTED] if is_podman else ["none"]
    argv: list[str | bytes] = [engine, "run", "--rm", "-i", "--name", name, "--log-driver", *driver, *options]
    argv += ["-v", f"{folder.input}:{_INPUT}:ro", "-e", f"STEPWELL_INPUT={_INPUT}"]
    ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    argv += [*_image_arguments(job.step, image, command), _argument(job.input)]
    execution = Execution(
        Program(argv, None, env, folder.input),
        log,
        ended.set_result,
        timeout_ms=None,
        judge=_judge,
        unreceived=partial(unreceived, printed),
    )
    try:
        return await asyncio.shield(ended)
    except asyncio.CancelledError:
        await _await_uncancelled(_kill(engine, name, execution, ended))
        raise


def unreceived(printed: Path, received: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
    """Output that the container printed but podman's client did not pass on, given the received bytes by stream.

    If a container ends with unread input, the client sometimes loses the end of the output, or all of it. The monitor's
    log has everything, in the format of Kubernetes: time, stream, F or P (full line or part), text.
    """
    left = dict(received)
    if not printed.exists():
        return
    with printed.open("rb") as lines:
        for line in lines:
            _, stream, kind, text = [*line.split(b" ", 3), b"", b"", b""][:4]
            name, piece = stream.decode(), text if kind == b"F" else text[:-1]
            if name not in left:  # the monitor was killed while writing a line
                continue
            if len(piece) > left[name]:
                yield name, piece[left[name] :]
            left[name] = max(0, left[name] - len(piece))


async def _kill(engine: str, name: str, execution: Execution, ended: asyncio.Future[Outcome]) -> None:
    execution.stop()
    await ended
    at_once = ["-t", "0"] if Path(engine).name == "podman" else []
    await run_engine([engine, "rm", "-f", *at_once, name], lambda stream, piece: None)


async def _await_uncancelled(work: Coroutine[None, None, None]) -> None:
    """Awaits work to the end, even if this is cancelled meanwhile."""
    task = asyncio.get_running_loop().create_task(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            continue


def _judge(code: int, report: ParsedOutput, line: str, now: int) -> Outcome:
    if code == _ENGINE_FAILED:
        return failure("start", f"the container could not be started: {line}")
    return from_exit(code, report, line, now)


# --- what to run -----------------------------------------------------------------------------------------------------


def image_of(job: Job) -> tuple[str, Path | None]:
    """The image's tag, and the Dockerfile if the image is built from one. Raises CannotRun."""
    if job.step.runtime.image is not None:
        return job.step.runtime.image, None
    if job.code is None:
        raise CannotRun("the step has neither an image nor code; give it an `image` or a `path`")
    code_hash = job.code_hash or hashlib.sha256(os.fsencode(job.code)).hexdigest()
    return f"stepwell/{code_hash[:24]}", dockerfile_of(job.code)


def dockerfile_of(code: Path) -> Path:
    """The Dockerfile in a step's code. Raises CannotRun if there is none."""
    try:
        return dockerfile(code)
    except CodeError as error:
        raise CannotRun(str(error)) from None


def local_command(step: Step, code: Path | None) -> tuple[str, ...]:
    """The command to run instead of the container. Raises CannotRun."""
    if code is None:
        raise CannotRun("the step has only an image, which --no-containers cannot run; start without --no-containers")
    try:
        return step.runtime.entrypoint or dockerfile_entry(code)
    except CodeError as error:
        raise CannotRun(str(error)) from None


def _image_arguments(step: Step, image: str, command: tuple[str, ...]) -> list[str]:
    """Options, image and arguments. Arguments replace the image's CMD, so the CMD is repeated."""
    runtime = step.runtime
    words = ["--memory", f"{runtime.memory}m"] if runtime.memory is not None else []
    words += ["--cpus", f"{runtime.cpu:g}"] if runtime.cpu is not None else []
    if runtime.entrypoint is None:
        return [*words, image, *command]
    return [*words, "--entrypoint", runtime.entrypoint[0], image, *runtime.entrypoint[1:]]


def _argument(content: bytes) -> bytes:
    return content if len(content) <= MAX_ARGUMENT_BYTES else f"@{_INPUT}".encode()


def variables(job: Job, file: str) -> tuple[list[str], dict[str, str]]:
    """Options that pass the declared variables on, and the environment of the client.

    Values must not be in the arguments, which every user of the machine can read. The client takes them from the
    environment. Variables that the client itself would read go into `file`. Raises CannotRun, OSError.
    """
    env = client_environment()
    options, lines = [], []
    for name, value in job.env.items():
        if not name.startswith(READ_BY_CLIENTS):
            env[name] = value
            options += ["-e", name]
        elif "\n" in value or "\r" in value:
            raise CannotRun(f"the variable {name} cannot have a line break in a container; rename it")
        else:
            lines.append(f"{name}={value}\n")
    if lines:
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as content:  # noqa: PTH123
            content.writelines(lines)
        options += ["--env-file", file]
    return options, env

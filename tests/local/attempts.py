"""Runs single attempts on an event loop, for the tests of runners."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import uvloop

from stepwell.core.plan import Retries, Runtime, Step
from stepwell.core.run.messages import Outcome
from stepwell.local.runners.job import Job, Runner, Running
from stepwell.local.runners.router import Runners
from stepwell.project.cache_folder import modules_cache

DEADLINE_S = 20.0

INPUT = orjson.dumps({"event": {"name": "user/signed.up", "data": {"n": 1}}, "steps": {}, "ctx": {"attempt": 1}})


def put(folder: Path, **files: str) -> Path:
    """Writes executable files; `__` in a name stands for a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        file = folder / name.replace("__", ".")
        file.write_text(text)
        file.chmod(0o755)
    return folder


def job(
    code: Path | None,
    runtime: Runtime,
    *,
    timeout_ms: int = 15_000,
    env: dict[str, str] | None = None,
    content: bytes = INPUT,
    path: str = "file://.",
) -> Job:
    step = Step(
        "step-1", "step-1", path, runtime, "merge", Retries(0, 1, 1, 1, 0), timeout_ms, (), (), (), (), (), 0, True
    )
    code_hash = None if code is None else hashlib.sha256(str(code).encode()).hexdigest()
    return Job("run-1", "function-1", 1, step, 1, content, code, code_hash, env or {})


def program(code: Path, *command: str, **options: Any) -> Job:
    return job(code, Runtime("lambda", command=command or None), **options)


def handler(code: Path, name: str, **options: Any) -> Job:
    return job(code, Runtime("lambda", handler=name), **options)


class Attempt:
    """An attempt that was started, with its log and outcome."""

    def __init__(self, runners: Runner, job: Job) -> None:
        self.logged: list[tuple[str, bytes]] = []
        self.outcome: Outcome | None = None
        self._news = asyncio.Event()
        self.running: Running = runners.start(job, self._log, self._ended)

    def _log(self, stream: str, text: bytes, /) -> None:
        assert self.outcome is None, "logged after the end"
        self.logged.append((stream, text))
        self._news.set()

    def _ended(self, outcome: Outcome) -> None:
        assert self.outcome is None, "ended twice"
        self.outcome = outcome
        self._news.set()

    async def until(self, condition: Callable[[Attempt], object]) -> Attempt:
        async with asyncio.timeout(DEADLINE_S):
            while not condition(self):
                self._news.clear()
                await self._news.wait()
        return self

    async def end(self) -> Attempt:
        return await self.until(lambda attempt: attempt.outcome)

    def log(self, *streams: str) -> str:
        return b"".join(text for s, text in self.logged if not streams or s in streams).decode(errors="replace")

    @property
    def output(self) -> Any:
        assert self.outcome is not None
        assert self.outcome.output is not None, (self.outcome, self.log())
        return orjson.loads(self.outcome.output)

    @property
    def error(self) -> tuple[str, bool, str]:
        """The error's kind, whether it is retried, and the message."""
        assert self.outcome is not None
        assert self.outcome.error is not None, self.outcome
        return self.outcome.error.kind, self.outcome.retryable, self.outcome.error.message


Start = Callable[[Job], Attempt]


@asynccontextmanager
async def runners(**options: Any) -> AsyncIterator[Start]:
    """All runners. Yields a function that starts a job. Modules are compiled once for all tests."""
    runners = Runners(**{"compiled": modules_cache(), **options})
    try:
        yield lambda job: Attempt(runners, job)
    finally:
        await asyncio.wait_for(runners.close(), DEADLINE_S)


def on_runners(work: Callable[[Start], Coroutine[Any, Any, None]], **options: Any) -> None:
    async def main() -> None:
        async with runners(**options) as start:
            await work(start)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def run(job: Job, **options: Any) -> Attempt:
    """Runs one job to the end."""
    attempts: list[Attempt] = []

    async def work(start: Start) -> None:
        attempts.append(await start(job).end())

    on_runners(work, **options)
    return attempts[0]


async def until(condition: Callable[[], object]) -> None:
    """Waits until a condition outside of this process holds."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.005)


def is_running(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False

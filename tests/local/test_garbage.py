"""An attempt that has ended leaves no reference cycles. They would keep large outputs in memory until a garbage
collection, which blocks the event loop."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stepwell.core.run.messages import Outcome
from stepwell.local.runners.job import Job
from stepwell.local.runners.router import Runners
from tests.local.attempts import handler, program, put

ATTEMPTS = 20


@contextmanager
def collector_off() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def execute(runners: Runners, job: Job) -> bytes | None:
    ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    runners.start(job, lambda stream, text: None, ended.set_result)
    return (await ended).output


def a_handler(folder: Path) -> Job:
    return handler(put(folder, app__py="def handler(event, context):\n    return {'n': 1}\n"), "app.handler")


def a_program(folder: Path) -> Job:
    return program(put(folder, main__sh="""echo '{"n": 1}'"""))


@pytest.mark.parametrize("make", [a_handler, a_program])
def test_an_attempt_leaves_no_cycles_of_objects(tmp_path: Path, make: Callable[[Path], Job]) -> None:
    job = make(tmp_path)

    async def main() -> None:
        runners = Runners()
        try:
            assert await execute(runners, job) == b'{"n":1}'  # objects that are made once may stay
            with collector_off():
                for _ in range(ATTEMPTS):
                    await execute(runners, job)
                assert gc.collect() < ATTEMPTS
        finally:
            await runners.close()

    asyncio.run(main())

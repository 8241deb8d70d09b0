"""Attempts that workers of another system execute outlive the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from stepwell.core.definition.definition import parse_definition
from stepwell.core.run.run import RunStatus, StepStatus
from stepwell.local.runners.job import End, Job, Log, Running
from tests.local.scripted import DONE, Held, Scripted, ScriptedRunner, scripted, until


class OtherSystem(ScriptedRunner):
    """Accepts attempts, and lets the test end them. It outlives the servers of a test."""

    def __init__(self) -> None:
        super().__init__(hold=True)
        self.accepts = True
        self.resumed: list[Held] = []

    def start_remote(self, job: Job, log: Log, end: End, accepted: Callable[[], None]) -> Running:
        if self.accepts:
            accepted()
        return self.start(job, log, end)

    def resume(self, job: Job, log: Log, end: End) -> Running:
        self.resumed.append(Held(job, log, end))
        return self.resumed[-1]


@asynccontextmanager
async def server(folder: Path, system: OtherSystem) -> AsyncIterator[Scripted]:
    async with scripted(folder, runner=system) as it:
        yield it


async def deploy(it: Scripted, runtime: dict[str, Any], **fields: Any) -> None:
    step = {"runtime": {"type": "docker", "image": "x"}, **fields}
    definition = parse_definition({"id": "f", "triggers": [{"event": "go"}], "steps": {"a": step}}).normalised()
    definition["steps"]["a"]["runtime"] = runtime
    await it.platform.registration.register(definition, {}, {}, "f.json")


CELERY, FAKTORY = {"type": "celery"}, {"type": "faktory", "queue": "mails"}


def test_an_accepted_attempt_goes_on_over_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        system = OtherSystem()
        async with server(tmp_path, system) as it:
            await deploy(it, CELERY)
            await it.send()
            await until(lambda: system.started)
            await it.platform.batches.write_all()
        async with server(tmp_path, system) as it:
            await until(lambda: system.resumed)
            assert (system.resumed[0].job.attempt, system.resumed[0].job.input) == (1, b"")
            system.resumed[0].end(DONE)
            await until(lambda: it.runs()[0].run.status is RunStatus.COMPLETED)
            assert [attempt.attempt for attempt in it.runs()[0].attempts] == [1]
            await it.platform.batches.write_all()
            assert it.count("accepted_attempts") == 0

    asyncio.run(main())


def test_an_attempt_that_was_not_accepted_is_passed_on_again_after_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        system = OtherSystem()
        system.accepts = False
        async with server(tmp_path, system) as it:
            await deploy(it, CELERY)
            await it.send()
            await until(lambda: system.started)
        async with server(tmp_path, system) as it:
            await until(lambda: len(system.started) == 2)
            assert system.resumed == []
            assert [attempt.status for attempt in it.runs()[0].attempts] == ["lost"]
            assert it.runs()[0].run.steps[0].attempt == 2

    asyncio.run(main())


def test_a_server_stops_without_waiting_for_attempts_of_other_systems(tmp_path: Path) -> None:
    async def main() -> None:
        system = OtherSystem()
        async with server(tmp_path, system) as it:
            await deploy(it, CELERY)
            await it.send()
            await until(lambda: system.started)
            assert it.platform.executor.running
            await it.platform.close(grace_s=60)

    asyncio.run(asyncio.wait_for(main(), 30))


def test_the_timeout_is_observed_after_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        system = OtherSystem()
        async with server(tmp_path, system) as it:
            await deploy(it, CELERY, timeout="1h", retries={"attempts": 0})
            await it.send()
            await until(lambda: system.started)
            await it.platform.batches.write_all()
        async with server(tmp_path, system) as it:
            await until(lambda: system.resumed)
            it.platform.clock.advance(3_600_000)
            it.platform.batches.schedule()
            await until(lambda: it.runs()[0].run.status is RunStatus.FAILED)
            await until(lambda: system.resumed[0].stopped)

    asyncio.run(main())


def test_a_job_is_claimed_when_a_worker_fetches_its_queue(tmp_path: Path) -> None:
    async def main() -> None:
        system = OtherSystem()
        async with server(tmp_path, system) as it:
            await deploy(it, FAKTORY)
            await it.send()
            await it.platform.until_idle()
            assert it.runs()[0].run.steps[0].status is StepStatus.QUEUED
            queues = it.platform.executor.worker_queues
            assert queues.sizes() == {"mails": 1}
            run_id, step, attempt = await asyncio.wait_for(queues.ask(["default", "mails"]), 10)
            assert (run_id, step, attempt) == (it.runs()[0].run.id, 0, 1)
            assert it.runs()[0].run.steps[0].status is StepStatus.RUNNING
            system.release()
            await until(lambda: it.runs()[0].run.status is RunStatus.COMPLETED)

    asyncio.run(main())


def test_a_queued_job_waits_for_workers_over_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        system = OtherSystem()
        async with server(tmp_path, system) as it:
            await deploy(it, FAKTORY)
            await it.send()
            await it.platform.until_idle()
        async with server(tmp_path, system) as it:
            assert system.started == []
            await asyncio.wait_for(it.platform.executor.worker_queues.ask(["mails"]), 10)
            assert it.runs()[0].run.steps[0].attempt == 1

    asyncio.run(main())

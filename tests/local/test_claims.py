"""Claims of attempts: durable before anything starts; no slot stays taken and no step stays running without reason."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from stepwell.core.definition.definition import parse_definition
from stepwell.core.run.messages import Error, Outcome
from stepwell.core.run.run import RunStatus, StepStatus
from stepwell.local.runners.job import Job
from tests.local.scripted import Scripted, scripted, until

FAILED = Outcome(error=Error("exit", "no"), retryable=True)
NEXT = {"after": [{"step": "a"}]}


def on_platform(folder: Path, test: Callable[[Scripted], Coroutine[None, None, None]], **options: Any) -> None:
    async def main() -> None:
        async with scripted(folder, **options) as it:
            await test(it)

    asyncio.run(main())


async def deploy_stoppable(it: Scripted) -> None:
    """A function whose runs end when the event `stop` comes."""
    steps = {"a": {"runtime": {"type": "docker", "image": "x"}}}
    raw = {"id": "f", "triggers": [{"event": "go"}], "cancel": [{"event": "stop"}], "steps": steps}
    await it.platform.registration.register(parse_definition(raw).normalised(), {}, {}, "f.json")


# --- durable before it starts ----------------------------------------------------------------------------------------


def test_the_claim_of_a_starting_attempt_is_committed(tmp_path: Path) -> None:
    """For first steps, next steps, retries, and attempts that were queued for a slot."""

    async def test(it: Scripted) -> None:
        claims: list[tuple[str, int, bool]] = []

        def read_claim(job: Job) -> None:
            detail = it.queries.read_run(job.run_id)
            states = (
                {} if detail is None else dict(zip((s.id for s in detail.plan.steps), detail.run.steps, strict=True))
            )
            state = states.get(job.step.id)
            is_claimed = state is not None and (state.status, state.attempt) == (StepStatus.RUNNING, job.attempt)
            claims.append((job.step.id, job.attempt, is_claimed))

        it.runner.on_start = read_claim
        await it.deploy(a={"retries": {"attempts": 1, "backoff": {"initial": "1s"}}}, b=NEXT)
        await it.platform.send(it.events(10))
        await until(lambda: len(it.runner.held) == 3)
        it.runner.release(FAILED)
        it.runner.hold = False
        await until(lambda: it.runner.started.count(("f", "a")) == 10)
        it.runner.release()
        await it.platform.until_idle()
        await it.platform.travel(10_000)
        assert sorted(claims) == [("a", 1, True)] * 10 + [("a", 2, True)] * 3 + [("b", 1, True)] * 10

    on_platform(tmp_path, test, hold=True, parallelism=3)


# --- slots -----------------------------------------------------------------------------------------------------------


def test_a_run_cancelled_in_the_batch_that_claims_its_step_leaves_no_slot_taken(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await deploy_stoppable(it)
        for _ in range(3):
            await it.platform.send([*it.events(1), *it.events(1, "stop")])
        await it.platform.until_idle()
        event_id = await it.send()
        await it.platform.until_idle()
        assert it.runs(event_id)[0].run.status is RunStatus.COMPLETED
        assert it.count(f"runs WHERE status = {int(RunStatus.CANCELLED)}") == 3

    on_platform(tmp_path, test, parallelism=1)


def test_a_queued_attempt_cancelled_with_a_reserved_slot_releases_it(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy()
        first, second, third = [await it.send() for _ in range(3)]
        it.runner.release()  # the slot is freed in the same batch that cancels the next attempt
        await it.platform.runs.cancel(it.runs(second)[0].run.id)
        await until(lambda: len(it.runner.held) == 1)
        it.runner.release()
        await it.platform.until_idle()
        ends = [it.runs(event_id)[0].run.status for event_id in (first, second, third)]
        assert ends == [RunStatus.COMPLETED, RunStatus.CANCELLED, RunStatus.COMPLETED]
        assert len(it.runner.started) == 2

    on_platform(tmp_path, test, hold=True, parallelism=1)


def test_an_attempt_that_is_cancelled_in_the_batch_that_claims_it_is_stopped(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await deploy_stoppable(it)
        await it.platform.send([*it.events(1), *it.events(1, "stop")])
        await until(lambda: it.count(f"runs WHERE status = {int(RunStatus.CANCELLED)}") == 1)
        assert [attempt.stopped for attempt in it.runner.held] in ([], [True])
        it.runner.release()
        await it.platform.until_idle()

    on_platform(tmp_path, test, hold=True)


# --- attempts that never start ---------------------------------------------------------------------------------------


def test_a_claim_whose_attempt_never_started_is_lost_and_the_next_follows(tmp_path: Path) -> None:
    """The machine stops between the commit and the start of the attempt."""
    stopped = tmp_path / "stopped"
    stopped.mkdir()

    def copy(job: Job) -> None:
        with sqlite3.connect(tmp_path / "db") as source, sqlite3.connect(stopped / "db") as target:
            source.backup(target)

    async def before(it: Scripted) -> None:
        it.runner.on_start = copy
        await it.deploy()
        await it.send()
        await until(lambda: it.runner.started)

    on_platform(tmp_path, before, hold=True)

    async def afterwards(it: Scripted) -> None:
        await it.platform.until_idle()
        (run,) = it.runs()
        assert [(row.attempt, row.status) for row in run.attempts] == [(1, "lost"), (2, "completed")]

    on_platform(stopped, afterwards)

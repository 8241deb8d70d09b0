"""Batches whose commit fails after all work was done: they have no effect, and what they took is available again."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from stepwell.core.routing.versions import paused, resumed
from stepwell.core.run.run import RunStatus
from stepwell.local.engine.batch_loop import Unavailable
from stepwell.local.store.batch import LocalBatch
from tests.local.scripted import Scripted, scripted, until

Test = Callable[[Scripted], Coroutine[None, None, None]]
COMPLETED = f"runs WHERE status = {int(RunStatus.COMPLETED)}"


def on_platform(folder: Path, test: Test, **options: Any) -> None:
    async def main() -> None:
        async with scripted(folder, **options) as it:
            await test(it)

    asyncio.run(main())


class Commits:
    """Makes the next commits of a platform fail, like a disk that becomes full at the last moment."""

    def __init__(self, it: Scripted) -> None:
        self.failing = 0
        commits, store = self, it.platform.store

        class Failing(LocalBatch):
            def flush(self) -> None:
                if commits.failing:
                    commits.failing -= 1
                    raise sqlite3.OperationalError("database or disk is full")
                super().flush()

        store.batch = lambda now: Failing(store, now)  # type: ignore[method-assign]


def test_a_batch_that_is_not_committed_starts_nothing(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy()
        commits = Commits(it)
        commits.failing = 1
        with pytest.raises(Unavailable, match="full"):
            await it.send(id="same")
        assert it.runner.started == []
        await it.send(id="same")
        await it.platform.until_idle()
        assert it.runner.started == [("f", "a")]
        assert it.count(COMPLETED) == it.count("runs") == 1

    on_platform(tmp_path, test)


def test_an_event_that_a_step_sends_is_stored_with_the_end_of_the_step_or_not_at_all(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        tell = {"runtime": {"type": "emit", "event": "told"}, "after": [{"step": "a"}]}
        await it.deploy(a={}, tell=tell)
        await it.deploy(id="receiver", on="told")
        await it.send()
        await until(lambda: len(it.runner.held) == 1)
        commits = Commits(it)
        commits.failing = 2
        it.runner.release()
        await until(lambda: commits.failing == 0)
        await until(lambda: len(it.runner.held) == 1)
        assert it.count("events WHERE name = 'told'") == 1
        assert it.runner.started == [("f", "a"), ("receiver", "a")]
        it.runner.release()
        await until(lambda: it.count(COMPLETED) == 2)
        (run,) = [detail for detail in it.runs() if detail.plan.function_id == "f"]
        assert [(row.attempt, row.status) for row in run.attempts] == [(1, "completed"), (1, "completed")]

    on_platform(tmp_path, test, hold=True)


def test_slots_of_an_uncommitted_batch_are_freed(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy()
        commits = Commits(it)
        commits.failing = 3
        for _ in range(3):
            with pytest.raises(Unavailable):
                await it.send()
        await it.platform.send(it.events(2))
        await until(lambda: len(it.runner.started) == 2)
        it.runner.release()

    on_platform(tmp_path, test, hold=True, parallelism=2)


def test_held_events_are_released_again_if_the_batch_is_not_committed(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy()
        change = it.platform.registration.change_routing
        await change("f", lambda routing, versions, now: paused(routing, drop=False))
        await it.platform.send(it.events(3))
        commits = Commits(it)
        await change("f", lambda routing, versions, now: resumed(routing))
        commits.failing = 1
        await until(lambda: it.count(COMPLETED) == 3)
        assert commits.failing == 0
        assert it.count("kept") == 0

    on_platform(tmp_path, test)


def test_the_end_of_an_attempt_is_folded_again_if_its_batch_is_not_committed(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(a={}, b={"after": [{"step": "a"}]})
        await it.send()
        await until(lambda: len(it.runner.held) == 1)
        commits = Commits(it)
        commits.failing = 2
        it.runner.release()
        await until(lambda: len(it.runner.started) == 2)
        it.runner.release()
        await until(lambda: it.count(COMPLETED) == 1)
        assert it.runner.started == [("f", "a"), ("f", "b")]
        (run,) = it.runs()
        assert [(row.attempt, row.status) for row in run.attempts] == [(1, "completed"), (1, "completed")]

    on_platform(tmp_path, test, hold=True)


def test_a_timer_is_due_again_if_its_batch_is_not_committed(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(a={"after": [{"step": "$trigger", "wait": "1h"}]})
        await it.send()
        await it.platform.until_idle()
        commits = Commits(it)
        it.platform.clock.advance(3_600_000)
        commits.failing = 1
        it.platform.batches.schedule()
        await until(lambda: it.count(COMPLETED) == 1)
        assert commits.failing == 0

    on_platform(tmp_path, test)

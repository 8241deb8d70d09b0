"""Batches and the clock: timers on time, batches that cannot be written, and restarts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from stepwell.core.run.messages import Error, Outcome
from stepwell.core.run.run import RunStatus
from stepwell.local.engine.batch_loop import Unavailable
from stepwell.local.store.batch import LocalBatch
from tests.local.scripted import Scripted, scripted, until

Test = Callable[[Scripted], Coroutine[None, None, None]]
DELAY_MS = 200


def has_completed(it: Scripted, event_id: str) -> bool:
    return it.runs(event_id)[0].run.status is RunStatus.COMPLETED


def on_platform(folder: Path, test: Test, **options: Any) -> None:
    async def main() -> None:
        async with scripted(folder, **options) as it:
            await test(it)

    asyncio.run(main())


# --- timers ----------------------------------------------------------------------------------------------------------


def test_timers_fire_in_time(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """Within 50 ms on a quiet machine; this test allows more for a busy one. Never early."""
    late: list[int] = []

    async def test(it: Scripted) -> None:
        await it.deploy(a={"after": [{"step": "$trigger", "wait": f"{DELAY_MS}ms"}]})
        for _ in range(5):
            event_id = await it.send()
            await until(partial(has_completed, it, event_id))
            run = it.runs(event_id)[0]
            late.append(run.attempts[0].queued_at - run.run.created_at - DELAY_MS)

    on_platform(tmp_path, test)
    record_property("milliseconds late", late)
    print(f"timers were {late} ms late")
    assert min(late) >= 0
    assert sorted(late)[len(late) // 2] <= 250


def test_many_timers_that_are_due_at_once_all_fire(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(a={"after": [{"step": "$trigger", "wait": "1h"}]})
        await it.platform.send(it.events(1200))
        await it.platform.until_idle()
        assert it.runner.started == []
        await it.platform.travel(3_600_000)
        assert len(it.runner.started) == 1200
        assert it.count("timers") == 0

    on_platform(tmp_path, test, parallelism=100)


# --- batches that cannot be written ----------------------------------------------------------------------------------


def read_only(it: Scripted, on: bool) -> None:
    it.platform.store.connection.execute(f"PRAGMA query_only = {int(on)}")


def test_events_that_cannot_be_written_are_refused_and_not_stored(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy()
        read_only(it, True)
        for _ in range(20):
            with pytest.raises(Unavailable, match="try again"):
                await it.send(id="same")
        assert it.count("events") == 0
        read_only(it, False)
        await it.send(id="same")
        await it.platform.until_idle()
        assert (it.count("events WHERE name = 'go'"), it.count("runs")) == (1, 1)
        assert it.runner.started == [("f", "a")]

    on_platform(tmp_path, test)


def test_a_full_disk_refuses_senders_until_there_is_room(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy()
        execute = it.platform.store.connection.execute
        (pages,) = execute("PRAGMA page_count").fetchone()
        execute(f"PRAGMA max_page_count = {pages}")
        accepted = 0

        async def send_until_it_is_full() -> None:
            nonlocal accepted
            for _ in range(1000):
                await it.send(data={"x": "x" * 1000})
                accepted += 1

        with pytest.raises(Unavailable, match="full"):
            await send_until_it_is_full()
        execute("PRAGMA max_page_count = 1000000")
        await it.send()
        await it.platform.until_idle()
        assert it.count("events WHERE name = 'go'") == accepted + 1
        assert {run.run.status for run in it.runs()} <= {RunStatus.COMPLETED}
        assert it.count("runs") == accepted + 1

    on_platform(tmp_path, test)


@pytest.mark.parametrize("outcome", [Outcome(output=b"1"), Outcome(error=Error("exit", "no"), retryable=False)])
def test_no_outcome_is_lost_while_nothing_can_be_written(tmp_path: Path, outcome: Outcome) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(a={}, b={"after": [{"step": "a", "on": "always"}]})
        event_id = await it.send()
        assert len(it.runner.held) == 1
        read_only(it, True)
        it.runner.release(outcome)
        for _ in range(3):
            with pytest.raises(Unavailable):
                await it.send()
        assert len(it.runner.started) == 1
        read_only(it, False)
        await until(lambda: len(it.runner.started) == 2)
        it.runner.release()
        await it.platform.until_idle()
        (run,) = it.runs(event_id)
        assert run.run.status is RunStatus.COMPLETED
        ended = "failed" if outcome.error else "completed"
        assert [(row.step, row.attempt, row.status) for row in run.attempts] == [(0, 1, ended), (1, 1, "completed")]

    on_platform(tmp_path, test, hold=True)


def test_attempts_queued_when_a_batch_failed_run_once_afterwards(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy()
        await it.platform.send(it.events(10))
        await until(lambda: len(it.runner.started) == 2)  # two slots
        read_only(it, True)
        it.runner.release()
        with pytest.raises(Unavailable):
            await it.send()
        read_only(it, False)

        def released_all() -> bool:
            it.runner.release()
            return not it.count("runs WHERE status = 0")

        await until(released_all)
        assert len(it.runner.started) == 10
        assert {(row.attempt, row.status) for run in it.runs() for row in run.attempts} == {(1, "completed")}

    on_platform(tmp_path, test, hold=True, parallelism=2)


def test_a_version_that_could_not_be_written_is_not_live(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy("f", "old")
        read_only(it, True)
        with pytest.raises(Unavailable):
            await it.deploy("f", "new")
        read_only(it, False)
        assert it.runs(await it.send("new")) == []
        assert len(it.runs(await it.send("old"))) == 1
        await it.deploy("f", "new")
        assert len(it.runs(await it.send("new"))) == 1

    on_platform(tmp_path, test)


def test_many_failures_cause_only_one_retry_at_a_time(tmp_path: Path) -> None:
    """However many senders were refused, the platform tries again only once at a time."""

    async def test(it: Scripted) -> None:
        read_only(it, True)
        for _ in range(200):
            with pytest.raises(Unavailable):
                await it.send()
        begun = 0
        batch = it.platform.store.batch

        def counted(now: int) -> LocalBatch:
            nonlocal begun
            begun += 1
            return batch(now)

        it.platform.store.batch = counted  # type: ignore[method-assign]
        began = time.monotonic()
        await until(lambda: begun == 6)
        assert time.monotonic() - began >= 0.2
        read_only(it, False)

    on_platform(tmp_path, test)


def test_it_closes_even_if_nothing_can_be_written(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy()
        await it.send()
        assert len(it.runner.held) == 1
        read_only(it, True)

    on_platform(tmp_path, test, hold=True)

    async def afterwards(it: Scripted) -> None:
        await it.platform.until_idle()
        (run,) = it.runs()
        assert [(row.attempt, row.status) for row in run.attempts] == [(1, "lost"), (2, "completed")]

    on_platform(tmp_path, afterwards)


# --- starting again --------------------------------------------------------------------------------------------------


def test_ten_thousand_queued_attempts_continue_after_a_restart(tmp_path: Path) -> None:
    async def before(it: Scripted) -> None:
        await it.deploy()
        await it.platform.send(it.events(10_000))
        it.runner.started.clear()

    on_platform(tmp_path, before, hold=True, parallelism=10)

    async def after(it: Scripted) -> None:
        began = time.monotonic()
        await until(lambda: it.count("runs WHERE status = 1") == 10_000, within=90)
        print(f"10,000 attempts in {time.monotonic() - began:.1f} s")
        assert len(it.runner.started) == 10_000
        assert it.count("attempts WHERE status = 'completed'") == 10_000
        assert it.count("attempts WHERE status = 'lost'") == 10

    on_platform(tmp_path, after, parallelism=100)


def test_a_busy_function_does_not_delay_another(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy("busy", "busy")
        await it.deploy("rare", "rare")
        await it.platform.send(it.events(500, "busy"))
        await it.send("rare")

        def rare_started() -> bool:
            it.runner.release()
            return ("rare", "a") in it.runner.started

        await until(rare_started)
        assert len(it.runner.started) < 10
        it.platform.executor.pause()

    on_platform(tmp_path, test, hold=True, parallelism=2)

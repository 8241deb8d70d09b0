"""Runs with many steps on the local server: a transition of an open run writes only the changed part of the state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from stepwell.core.run.messages import Error, Outcome
from stepwell.core.run.run import PART, RunStatus, StepStatus, pack, unpack
from stepwell.local.store.batch import LocalBatch
from tests.local.scripted import Scripted, scripted, until

STEPS = 5 * PART
HOUR = 3_600_000

Test = Callable[[Scripted], Coroutine[None, None, None]]


def on_platform(folder: Path, test: Test, **options: Any) -> None:
    async def main() -> None:
        async with scripted(folder, **{"hold": True, **options}) as it:
            await test(it)

    asyncio.run(main())


async def begin(it: Scripted, **first: Any) -> None:
    """Starts a chain of steps. `first` is the first step's output."""
    steps = {f"s{n}": {"after": [{"step": f"s{n - 1}"}]} for n in range(1, STEPS)}
    await it.deploy(**{"s0": first, **steps})
    await it.send()


async def go_on(it: Scripted, steps: int) -> None:
    """Ends this many steps, one after the other, and waits until the next one runs."""
    for _ in range(steps):
        await until(lambda: it.runner.held)
        it.runner.release()
    await until(lambda: it.runner.held)


async def finish(it: Scripted) -> None:
    it.runner.hold = False
    it.runner.release()
    await it.platform.until_idle()
    assert set(statuses(it)) == {StepStatus.COMPLETED}


def statuses(it: Scripted) -> list[StepStatus]:
    """The statuses of the only run's steps, as in lists."""
    (detail,) = it.runs()
    return [step.status for step in detail.run.steps]


def after(steps: int) -> list[StepStatus]:
    """Calls when this many steps have ended."""
    rest = [StepStatus.PENDING] * (STEPS - steps - 1)
    return [*[StepStatus.COMPLETED] * steps, StepStatus.RUNNING, *rest]


def test_a_transition_writes_the_part_that_it_changes(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await begin(it)
        await go_on(it, PART + 3)
        connection, written = it.platform.store.connection, list[str]()
        connection.set_trace_callback(written.append)
        await go_on(it, 1)
        connection.set_trace_callback(None)
        assert it.count("run_parts") == 2
        (row,) = [sql for sql in written if "UPDATE runs" in sql]
        (part,) = [sql for sql in written if "INTO run_parts" in sql]
        at_most = 2 * 50 * PART  # it is written in hexadecimal
        assert len(part) < at_most
        assert len(row) < at_most  # the row has one digit per edge, and no steps

    on_platform(tmp_path, test)


def test_an_open_long_run_is_shown_as_it_is(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await begin(it)
        for steps in (0, 1, PART - 2, 1, 1):
            await go_on(it, steps)
            assert statuses(it) == after(len(it.runner.started) - 1)
        assert len(it.runner.started) == PART + 2

    on_platform(tmp_path, test)


def test_an_ended_long_run_is_stored_in_one_piece(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await begin(it)
        await finish(it)
        (row,) = it.platform.store.connection.execute("SELECT id, state FROM runs").fetchall()
        assert unpack(*row).status is RunStatus.COMPLETED
        assert it.count("run_parts") == 0

    on_platform(tmp_path, test)


def test_a_cancelled_long_run_is_stored_in_one_piece(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await begin(it)
        await go_on(it, 40)
        await it.platform.runs.cancel(it.runs()[0].run.id)
        assert statuses(it) == [StepStatus.COMPLETED] * 40 + [StepStatus.CANCELLED] * (STEPS - 40)
        assert it.count("run_parts") == 0

    on_platform(tmp_path, test)


@pytest.mark.parametrize("is_old", [False, True], ids=["in parts", "in one piece, as older versions wrote it"])
def test_a_long_run_continues_after_a_restart(tmp_path: Path, is_old: bool) -> None:
    async def first(it: Scripted) -> None:
        await begin(it)
        await go_on(it, 50)
        if is_old:
            it.platform.store.connection.execute("UPDATE runs SET state = ?", (pack(it.runs()[0].run),))
            it.platform.store.connection.execute("DELETE FROM run_parts")
            it.platform.store.reset()  # clear the memory

    async def second(it: Scripted) -> None:
        await finish(it)
        assert [step for _, step in it.runner.started] == [f"s{n}" for n in range(50, STEPS)]

    on_platform(tmp_path, first)
    on_platform(tmp_path, second)


def test_parts_of_a_failed_batch_do_not_count_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(it: Scripted) -> None:
        await begin(it)
        await go_on(it, 40)

        def fail(batch: LocalBatch) -> None:
            monkeypatch.undo()
            batch.write()
            raise OSError("the disk is full")

        monkeypatch.setattr(LocalBatch, "flush", fail)
        it.runner.release()
        await until(lambda: it.runner.held)
        assert statuses(it) == after(41)
        await finish(it)

    on_platform(tmp_path, test)


def test_a_long_run_is_whole_after_the_clock_was_set_back(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await begin(it, retries={"attempts": 1, "backoff": {"initial": "30m", "jitter": 0}})
        await until(lambda: it.runner.held)
        it.runner.release(Outcome(error=Error("exit", "no"), retryable=True))
        await it.platform.until_idle()
        it.platform.clock.advance(-5 * HOUR)
        await it.send("nothing")
        await it.platform.until_idle()
        assert it.count("run_parts") == 0
        await it.platform.travel(29 * 60_000)
        assert statuses(it) == [StepStatus.RETRYING, *[StepStatus.PENDING] * (STEPS - 1)]
        it.platform.clock.advance(2 * 60_000)
        await go_on(it, 40)
        assert statuses(it) == after(40)
        await finish(it)

    on_platform(tmp_path, test)


def test_a_step_sees_the_outputs_of_all_steps_before_it(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await begin(it)
        for steps in (20, 1, 30):
            await go_on(it, steps)
            members = ",".join(f'"s{n}":"done"' for n in range(len(it.runner.started) - 1))
            assert f'"steps":{{{members}}}'.encode() in it.runner.held[0].job.input

    on_platform(tmp_path, test)

"""Facts that cannot be folded, for example because of a damaged row, are retried until they can be, also after a
restart."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path

import pytest

from stepwell.core.run.messages import Outcome
from stepwell.core.run.run import PauseStatus, RunStatus, StepStatus
from tests.local.scripted import Scripted, scripted, until

CONDITION = {"step": "b", "if": "steps.a.x == 1"}
PAID = {"step": "a", "async": {"event": "paid", "ttl": "2d"}}


def on_platform(folder: Path, test: Callable[[Scripted], Coroutine[None, None, None]], *, hold: bool = False) -> None:
    async def main() -> None:
        async with scripted(folder, hold=hold, parallelism=1) as it:
            await test(it)

    asyncio.run(main())


def set_output(it: Scripted, text: bytes) -> None:
    """Overwrites the output of `a` in the database; the run is not in memory, since it waits."""
    it.platform.store.connection.execute("UPDATE attempts SET output = ? WHERE step = 0", (text,))


def statuses(it: Scripted) -> list[StepStatus]:
    (detail,) = it.runs()
    return [step.status for step in detail.run.steps]


async def begin(it: Scripted) -> None:
    """Starts a run that waits, and damages what it needs next."""
    await it.deploy(a={}, b={"after": [PAID]}, c={"after": [CONDITION]})
    await it.send()
    await until(lambda: it.runner.held)
    it.runner.release(Outcome(output=b'{"x":1}'))
    await until(lambda: it.count("waits") == 1)
    await it.platform.batches.between_batches()
    set_output(it, b"{")


async def damaged(it: Scripted) -> None:
    """Damages a run so that the end of `b` cannot be folded."""
    await begin(it)
    await it.send("paid")
    await until(lambda: it.runner.held)
    it.runner.release()
    await until(lambda: not it.platform.executor.running)
    await it.platform.batches.write_all()
    assert statuses(it) == [StepStatus.COMPLETED, StepStatus.RUNNING, StepStatus.PENDING]


def test_an_end_that_cannot_be_folded_is_folded_once_it_can_be(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await damaged(it)
        set_output(it, b'{"x":1}')
        it.runner.hold = False
        await until(lambda: it.runs()[0].run.status is RunStatus.COMPLETED)

    on_platform(tmp_path, test, hold=True)


class AheadLoop(asyncio.SelectorEventLoop):
    """An event loop whose time can be moved."""

    ahead_s = 0.0

    def time(self) -> float:
        return super().time() + self.ahead_s


def test_delays_start_again_after_minutes_without_a_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def delays() -> list[str]:
        return [record.getMessage().split()[-2] for record in caplog.records if "trying again" in record.msg]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, AheadLoop)
        async with scripted(tmp_path, hold=True, parallelism=1) as it:
            await damaged(it)
            await until(lambda: delays()[:3] == ["0.05", "0.1", "0.2"])
            tried = len(delays())
            loop.ahead_s = 130.0
            await until(lambda: len(delays()) > tried)
            assert delays()[tried] == "0.05"

    with asyncio.Runner(loop_factory=AheadLoop) as runner:
        runner.run(main())


def test_other_runs_continue_with_all_slots(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await damaged(it)
        it.runner.hold = False
        other = await it.send()
        await until(lambda: it.runs(other)[0].run.steps[0].status is StepStatus.COMPLETED)

    on_platform(tmp_path, test, hold=True)


def test_after_a_restart_the_attempt_is_lost_and_runs_again(tmp_path: Path) -> None:
    async def again(it: Scripted) -> None:
        set_output(it, b'{"x":1}')
        await until(lambda: it.runs()[0].run.status is RunStatus.COMPLETED)
        assert it.runner.started == [("f", "b"), ("f", "c")]

    on_platform(tmp_path, damaged, hold=True)
    on_platform(tmp_path, again)


def test_a_timer_whose_fact_cannot_be_folded_survives_a_restart(tmp_path: Path) -> None:
    match = "async.data.n == steps.a.x"

    async def delay_ends(it: Scripted) -> None:
        wait = {"step": "a", "wait": "1m", "async": {"event": "paid", "ttl": "2d", "match": match}}
        await it.deploy(a={}, b={"after": [wait]})
        await it.send()
        await until(lambda: it.runner.held)
        it.runner.release(Outcome(output=b'{"x":1}'))
        await until(lambda: it.count("timers") == 1)
        await it.platform.batches.between_batches()
        set_output(it, b"{")
        (before,) = it.platform.store.connection.execute("SELECT due_at FROM timers").fetchone()
        it.platform.clock.advance(60_001)
        it.platform.batches.schedule()
        await until(
            lambda: it.platform.store.connection.execute("SELECT min(due_at) FROM timers").fetchone()[0] > before
        )
        assert it.runs()[0].run.pauses[0].status is PauseStatus.DELAYED

    async def again(it: Scripted) -> None:
        set_output(it, b'{"x":1}')
        it.platform.clock.advance(200_000)
        it.platform.batches.schedule()
        await until(lambda: it.runs()[0].run.pauses[0].status is PauseStatus.AWAITING)

    on_platform(tmp_path, delay_ends, hold=True)
    on_platform(tmp_path, again)


def test_a_damaged_run_does_not_delay_the_start(tmp_path: Path) -> None:
    async def begin_two(it: Scripted) -> None:
        await it.deploy()
        await it.send()
        await it.send()
        await until(lambda: it.runner.held)

    async def again(it: Scripted) -> None:
        await until(lambda: it.count(f"runs WHERE seq = 2 AND status = {int(RunStatus.COMPLETED)}") == 1)

    on_platform(tmp_path, begin_two, hold=True)
    with closing(sqlite3.connect(tmp_path / "db")) as connection:
        connection.execute("UPDATE runs SET state = x'00' WHERE seq = 1")
        connection.commit()
    on_platform(tmp_path, again)

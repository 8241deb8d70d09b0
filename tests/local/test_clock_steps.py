"""The clock is set forward and back by hours while the server runs, sleeps or is down.

Nothing waits for hours that pass twice, nothing happens twice, and nothing happens too early.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import sqlite3
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from stepwell.core.run.messages import Error, Outcome
from stepwell.core.run.run import RunStatus
from stepwell.local.engine.clock import Clock
from stepwell.local.engine.retention import clean
from stepwell.local.store.clock_steps import move_back
from stepwell.reader import RunDetail
from tests.local.scripted import Scripted, scripted, until

SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000
FAILED = Outcome(error=Error("exit", "no"), retryable=True)
Test = Callable[[Scripted], Coroutine[None, None, None]]


def on_platform(folder: Path, test: Test, clock: Clock | None = None) -> Clock:
    """Runs `test` on a platform, and gives it the platform's clock."""
    clock = clock or Clock()

    async def main() -> None:
        async with scripted(folder, clock=clock) as it:
            await test(it)

    asyncio.run(main())
    return clock


def ticks(it: Scripted) -> list[str]:
    return [event.event.id for event in it.queries.read_events(name="stepwell/scheduled.timer", limit=100).items]


async def completed(it: Scripted, event: str) -> RunDetail:
    await until(lambda: [run.run.status for run in it.runs(event)] == [RunStatus.COMPLETED])
    return it.runs(event)[0]


def retried(after: str) -> dict[str, object]:
    return {"retries": {"attempts": 1, "backoff": {"initial": after, "jitter": 0}}}


DELAY = {"after": [{"step": "a", "wait": "30m"}]}
LONG_DELAY = {"after": [{"step": "a", "wait": "10h"}]}
DEADLINE = {"after": [{"step": "a", "async": {"event": "never", "ttl": "30m", "onTimeout": True}}]}
DELAY_AND_DEADLINE = {
    "after": [{"step": "a", "wait": "20m", "async": {"event": "never", "ttl": "10m", "onTimeout": True}}]
}


# --- back ------------------------------------------------------------------------------------------------------------


def test_timers_are_moved_back_one_run_at_a_time(tmp_path: Path) -> None:
    """In pieces, so that requests are answered in between, however many runs wait."""
    pieces: list[int] = []

    async def test(it: Scripted) -> None:
        await it.deploy(a={"after": [{"step": "$trigger", "wait": "20m"}]})
        await it.platform.send(it.events(30))
        await it.platform.until_idle()
        assert it.count("timers") == 30

        def follow(connection: sqlite3.Connection, now: int) -> None:
            store = it.platform.store
            store.forget_runs()
            pieces.append(sum(1 for _ in move_back(connection, store.functions.plan, HOUR, now - HOUR)))

        await it.platform.in_transaction(follow)

    on_platform(tmp_path, test)
    assert pieces[0] > 30


@pytest.mark.parametrize("step", [DELAY, DEADLINE, DELAY_AND_DEADLINE])
def test_a_delay_keeps_its_length_when_the_clock_was_set_back(tmp_path: Path, step: dict[str, object]) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(a={}, b=step)
        event = await it.send()
        await it.platform.until_idle()
        it.platform.clock.advance(-5 * HOUR)
        await it.send("nothing")
        await it.platform.until_idle()
        await it.platform.travel(29 * MINUTE)
        assert it.runner.started == [("f", "a")]
        await it.platform.travel(MINUTE + SECOND)
        await completed(it, event)

    on_platform(tmp_path, test)


def test_a_retry_keeps_its_delay_when_the_clock_was_set_back(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        it.runner.hold = True
        await it.deploy(a=retried("10m"))
        event = await it.send()
        await until(lambda: it.runner.held)
        it.runner.release(FAILED)
        await it.platform.until_idle()
        it.runner.hold = False
        it.platform.clock.advance(-5 * HOUR)
        await it.send("nothing")
        await it.platform.travel(9 * MINUTE)
        assert len(it.runner.started) == 1
        await it.platform.travel(MINUTE + SECOND)
        assert len(it.runner.started) == 2
        await completed(it, event)

    on_platform(tmp_path, test)


def test_an_approval_times_out_after_its_time_when_the_clock_was_set_back(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(a={"runtime": {"type": "approval", "message": "'may I?'"}, "timeout": "30m"})
        event = await it.send()
        await it.platform.until_idle()
        it.platform.clock.advance(-5 * HOUR)
        await it.send("nothing")
        await it.platform.travel(29 * MINUTE)
        assert it.runs(event)[0].run.status is RunStatus.RUNNING
        await it.platform.travel(MINUTE + SECOND)
        assert it.runs(event)[0].run.status is RunStatus.FAILED

    on_platform(tmp_path, test)


def test_a_delay_until_a_time_ends_at_this_time_when_the_clock_was_set_back(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        at = it.platform.clock.now() + 30 * MINUTE
        await it.deploy(a={}, b={"after": [{"step": "a", "wait": {"until": "data.at"}}]})
        event = await it.send(data={"at": at})
        await it.platform.until_idle()
        it.platform.clock.advance(-5 * HOUR)
        await it.send("nothing")
        await it.platform.travel(5 * HOUR + 29 * MINUTE)
        assert it.runner.started == [("f", "a")]
        await it.platform.travel(MINUTE + SECOND)
        await completed(it, event)

    on_platform(tmp_path, test)


@pytest.mark.parametrize("timeouts", [{"start": "30m"}, {"finish": "30m"}])
def test_timeouts_of_a_run_keep_their_length_when_the_clock_was_set_back(
    tmp_path: Path, timeouts: dict[str, str]
) -> None:
    async def test(it: Scripted) -> None:
        waits = {"after": [{"step": "$trigger", "wait": "10h"}]} if "start" in timeouts else {}
        await it.deploy(timeouts=timeouts, a=waits, b=LONG_DELAY)
        event = await it.send()
        await it.platform.until_idle()
        it.platform.clock.advance(-5 * HOUR)
        await it.send("nothing")
        await it.platform.travel(29 * MINUTE)
        assert it.runs(event)[0].run.status is RunStatus.RUNNING
        await it.platform.travel(MINUTE + SECOND)
        assert it.runs(event)[0].run.status is RunStatus.CANCELLED

    on_platform(tmp_path, test)


def test_an_idle_server_notices_by_itself_that_the_clock_was_set_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(a={}, b={"after": [{"step": "a", "wait": "1s"}]})
        event = await it.send()
        await it.platform.until_idle()
        it.platform.clock.advance(-5 * HOUR)
        await completed(it, event)

    with caplog.at_level(logging.WARNING):
        on_platform(tmp_path, test)
    assert "the clock was set back by 18000 s" in caplog.text


def test_timers_set_before_a_step_back_keep_their_time(tmp_path: Path) -> None:
    """A clock that goes forward by mistake and back again makes nothing due too early."""

    async def test(it: Scripted) -> None:
        await it.deploy(a={}, b=LONG_DELAY)
        event = await it.send()
        await it.platform.until_idle()
        due = it.platform.virtual_time.next_due
        for ms in (5 * HOUR, -5 * HOUR):
            it.platform.clock.advance(ms)
            await it.send("nothing")
            await it.platform.until_idle()
        assert it.platform.virtual_time.next_due == due
        await it.platform.travel(9 * HOUR)
        assert it.runner.started == [("f", "a")]
        await it.platform.travel(HOUR + SECOND)
        await completed(it, event)

    on_platform(tmp_path, test)


def test_cron_continues_when_the_clock_was_set_back_and_no_minute_ticks_twice(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(on={"cron": "* * * * *"})
        await it.platform.travel(3 * MINUTE)
        before = ticks(it)
        assert len(before) == 3
        it.platform.clock.advance(-5 * HOUR)
        await it.send("nothing")
        await it.platform.until_idle()
        await it.platform.travel(2 * MINUTE)
        assert len(ticks(it)) == 5
        it.platform.clock.advance(-2 * MINUTE)
        await it.send("nothing")
        await it.platform.travel(2 * MINUTE)
        assert len(ticks(it)) == len(set(ticks(it))) == 5
        await it.platform.travel(MINUTE)
        assert len(ticks(it)) == 6
        assert len(it.runner.started) == 6

    on_platform(tmp_path, test)


def test_a_paused_cron_trigger_continues_when_resumed_after_the_clock_was_set_back(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(on={"cron": "0 0 * * *"})
        next_due = it.platform.virtual_time.next_due
        assert next_due is not None
        it.platform.clock.advance(-10 * DAY)
        await it.send("nothing")
        await it.platform.until_idle()
        assert it.platform.virtual_time.next_due == next_due - 10 * DAY

    on_platform(tmp_path, test)


def test_an_idempotency_value_expires_in_a_day_after_the_clock_was_set_back(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(idempotency="event.data.n")
        await it.send(data={"n": 1})
        await it.platform.until_idle()
        it.platform.clock.advance(-30 * DAY)
        await it.send(data={"n": 1})
        await it.platform.until_idle()
        assert len(it.runner.started) == 1
        it.platform.clock.advance(DAY + MINUTE)
        await it.send(data={"n": 1})
        await it.platform.until_idle()
        assert len(it.runner.started) == 2

    on_platform(tmp_path, test)


def test_retention_continues_after_the_clock_was_years_ahead(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy()
        await it.send()
        await it.platform.until_idle()
        it.platform.clock.advance(-20 * 365 * DAY)
        await it.send()
        await it.platform.until_idle()
        it.platform.clock.advance(31 * DAY)
        await clean(it.platform, 30)
        assert (it.count("events"), it.count("runs")) == (0, 0)

    on_platform(tmp_path, test, _ahead(20 * 365 * DAY))


def _ahead(ms: int) -> Clock:
    clock = Clock()
    clock.advance(ms)
    return clock


def test_events_are_ordered_by_acceptance(tmp_path: Path) -> None:
    """Lists that are limited by time are correct, too."""

    async def test(it: Scripted) -> None:
        ids = []
        for hours in (0, 1, -3, 1, -10, 0):
            it.platform.clock.advance(hours * HOUR)
            ids.append(await it.send("nothing"))
        rows = it.queries.read_events(limit=10).items
        assert [row.event.id for row in rows] == ids[::-1]
        times = [row.accepted_at for row in rows]
        assert all(newer >= older for newer, older in itertools.pairwise(times))
        since = it.queries.read_events(since=it.platform.clock.now() - MINUTE, limit=10).items
        assert len(since) == 6

    on_platform(tmp_path, test)


def test_an_event_after_the_step_back_satisfies_a_wait_that_was_set_before(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(a={}, b={"after": [{"step": "a", "async": {"event": "more", "ttl": "30m"}}]})
        event = await it.send()
        await it.platform.until_idle()
        it.platform.clock.advance(-5 * HOUR)
        await it.send("more")
        await completed(it, event)

    on_platform(tmp_path, test)


def test_a_server_that_starts_with_an_earlier_clock_continues_in_time(tmp_path: Path) -> None:
    async def begin(it: Scripted) -> None:
        await it.deploy(a={}, b=DELAY)
        await it.deploy("c", on={"cron": "0 0 1 1 *"})
        await it.send()
        await it.platform.until_idle()

    async def go_on(it: Scripted) -> None:
        await it.platform.until_idle()
        await it.platform.travel(31 * MINUTE)
        assert it.runner.started == [("f", "b")]
        assert [run.run.status for run in it.runs()] == [RunStatus.COMPLETED]

    clock = on_platform(tmp_path, begin)
    clock.advance(-400 * DAY)
    on_platform(tmp_path, go_on, clock)


def test_times_are_moved_back_once_a_batch_can_be_written_again(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(a={}, b=DELAY)
        event = await it.send()
        await it.platform.until_idle()
        it.platform.store.connection.execute("PRAGMA query_only = ON")
        it.platform.clock.advance(-5 * HOUR)
        with pytest.raises(Exception, match="not accepted"):
            await it.send("nothing")
        it.platform.store.connection.execute("PRAGMA query_only = OFF")
        await until(lambda: it.platform.virtual_time.is_idle)
        await it.send("nothing")
        await it.platform.travel(31 * MINUTE)
        await completed(it, event)

    on_platform(tmp_path, test)


# --- forward ---------------------------------------------------------------------------------------------------------


def test_an_idle_server_fires_timers_that_became_due_while_it_slept(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(a={}, b=DELAY)
        await it.deploy("c", on={"cron": "* * * * *"})
        event = await it.send()
        await it.platform.until_idle()
        it.platform.clock.advance(5 * HOUR)
        await completed(it, event)
        await it.platform.until_idle()
        assert len(ticks(it)) == 1  # the latest missed one

    on_platform(tmp_path, test)


def test_a_pause_ends_when_the_clock_jumps(tmp_path: Path) -> None:
    async def main() -> None:
        for ms in (HOUR, -HOUR):
            clock = Clock()
            pause = asyncio.create_task(clock.pause(200))
            await asyncio.sleep(0)
            clock.advance(ms)
            await asyncio.wait_for(pause, 5)

    asyncio.run(main())


def test_times_do_not_go_back_when_the_clock_is_corrected_by_a_part_of_a_second(tmp_path: Path) -> None:
    """Lists and timelines are read by number, and shown with their times."""

    async def test(it: Scripted) -> None:
        await it.deploy()
        for _ in range(3):
            await it.send()
            it.platform.clock.advance(-300)
        await it.platform.until_idle()
        execute = it.platform.store.connection.execute
        for sql in ("SELECT accepted_at FROM events ORDER BY seq", "SELECT created_at FROM runs ORDER BY seq"):
            times = execute(sql).fetchall()
            assert times == sorted(times)

    on_platform(tmp_path, test)


def test_starts_that_count_for_a_rate_limit_move_back_with_the_clock(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(control={"rate_limit": {"limit": 2, "period": "1d"}})
        started = it.runner.started
        await it.send()
        it.platform.clock.advance(-30 * DAY)
        for _ in range(2):
            await it.send()
        await it.platform.until_idle()
        assert len(started) == 2, "the first start counts as just before"
        it.platform.clock.advance(DAY + MINUTE)
        for _ in range(3):
            await it.send()
        await it.platform.until_idle()
        assert len(started) == 4

    on_platform(tmp_path, test)


def test_starts_that_move_back_keep_their_order(tmp_path: Path) -> None:
    """The clock was right when the first run started, and is set back by more than has passed since."""

    async def test(it: Scripted) -> None:
        await it.deploy(control={"rate_limit": {"limit": 2, "period": "1d"}})
        await it.send()
        it.platform.clock.advance(2 * HOUR)
        await it.send()
        await it.platform.until_idle()
        it.platform.clock.advance(-HOUR)
        await it.send()
        await it.platform.until_idle()
        rows = it.platform.store.connection.execute("SELECT at, until - at FROM rate_starts ORDER BY number").fetchall()
        assert [row[1] for row in rows] == [DAY, DAY]
        assert rows[0][0] <= rows[1][0] <= it.platform.clock.now()

    on_platform(tmp_path, test)

"""The steady clock, which hides small steps back, and the timer for whatever is due next."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine

import pytest

from stepwell.local.engine.clock import Clock
from stepwell.local.engine.due_timer import DueTimer
from stepwell.local.engine.steady_clock import SteadyClock


class SetClock(Clock):
    """A clock that shows the time it was set to."""

    def __init__(self, time: int) -> None:
        super().__init__()
        self.time = time
        self.looks = 0  # how often the clock was read

    def now(self) -> int:
        self.looks += 1
        return self.time


def steady(latest: int) -> tuple[SetClock, SteadyClock]:
    clock = SetClock(latest)
    return clock, SteadyClock(clock, latest)


# --- the steady clock ------------------------------------------------------------------------------------------------


def test_time_follows_the_clock() -> None:
    clock, time = steady(10_000)
    assert time.now() == 10_000
    clock.time = 10_001
    assert (time.now(), time.set_back_ms) == (10_001, 0)


def test_a_small_step_back_is_hidden_until_the_clock_has_caught_up() -> None:
    clock, time = steady(10_000)
    clock.time = 9_000
    assert (time.now(), time.set_back_ms) == (10_000, 0)
    clock.time = 10_500
    assert time.now() == 10_500
    clock.time = 9_500
    assert (time.now(), time.set_back_ms) == (10_500, 0), "a second before the latest time"


def test_a_large_step_back_is_logged_and_followed(caplog: pytest.LogCaptureFixture) -> None:
    clock, time = steady(10_000)
    clock.time = 8_999
    with caplog.at_level(logging.WARNING, "stepwell.local"):
        assert (time.now(), time.set_back_ms) == (8_999, 1_001)
    assert "the clock was set back by 1 s" in caplog.text
    assert (time.now(), time.set_back_ms) == (8_999, 1_001), "one step, however often the clock is read"


def test_steps_back_add_up_until_stored_times_have_moved() -> None:
    clock, time = steady(100_000)
    clock.time = 50_000
    time.now()
    clock.time = 20_000
    time.now()
    assert time.set_back_ms == 80_000
    time.moved_back(50_000)
    assert time.set_back_ms == 30_000
    time.moved_back(30_000)
    assert time.set_back_ms == 0


def test_a_clock_behind_the_database_counts_as_set_back() -> None:
    time = SteadyClock(SetClock(10_000), latest=70_000)
    assert (time.now(), time.set_back_ms) == (10_000, 60_000)


# --- the timer -------------------------------------------------------------------------------------------------------


def on_loop(test: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 20))


def timer_of(clock: SetClock, look_again_s: float = 30.0) -> tuple[DueTimer, asyncio.Event]:
    fired = asyncio.Event()
    return DueTimer(SteadyClock(clock, clock.time), look_again_s, fired.set), fired


def test_a_time_is_due_when_it_is_reached() -> None:
    async def test() -> None:
        timer, _ = timer_of(SetClock(1_000))
        assert not timer.is_due(1_000)
        timer.set(2_000, 1_000)
        assert [timer.is_due(now) for now in (1_999, 2_000, 2_001)] == [False, True, True]
        timer.set(None, 1_000)
        assert (timer.is_due(9_000), timer.next_due) == (False, None)
        timer.cancel()

    on_loop(test)


def test_it_calls_at_the_time_that_was_set_last() -> None:
    async def test() -> None:
        clock = SetClock(1_000)
        timer, fired = timer_of(clock)
        timer.set(3_600_000, 1_000)
        timer.set(900, 1_000)
        await fired.wait()

    on_loop(test)


def test_it_reads_the_clock_again_in_case_it_was_set_forward() -> None:
    async def test() -> None:
        clock = SetClock(1_000)
        timer, fired = timer_of(clock, look_again_s=0.001)
        timer.set(3_600_000, 1_000)
        while clock.looks < 3:
            await asyncio.sleep(0)
        assert not fired.is_set()
        clock.time = 3_600_000
        await fired.wait()

    on_loop(test)


def test_it_calls_when_the_clock_was_set_back() -> None:
    async def test() -> None:
        clock = SetClock(3_600_000)
        timer, fired = timer_of(clock, look_again_s=0.001)
        timer.set(9_000_000, 3_600_000)
        clock.time = 1_000
        await fired.wait()

    on_loop(test)


def test_it_does_not_call_without_a_time_or_after_a_cancel() -> None:
    async def test() -> None:
        timer, fired = timer_of(SetClock(1_000))
        timer.set(1_000, 1_000)
        timer.cancel()
        timer.set(1_000, 1_000)
        timer.set(None, 1_000)
        for _ in range(3):
            await asyncio.sleep(0)
        assert not fired.is_set()

    on_loop(test)

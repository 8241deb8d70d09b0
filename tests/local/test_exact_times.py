"""Limits are exact to the millisecond: deadlines of waits, delays, and retention."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from stepwell.local.engine.retention import clean
from stepwell.testing.local import StillClock
from tests.local.scripted import Scripted, scripted, until

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
MANY = 600  # deadlines, more than one batch takes
PAID = {"event": "paid", "ttl": "1h"}


def on_platform(folder: Path, test: Callable[[Scripted], Coroutine[None, None, None]], **options: Any) -> None:
    async def main() -> None:
        async with scripted(folder, clock=StillClock(), **options) as it:
            await test(it)

    asyncio.run(main())


async def wait_for_payment(it: Scripted) -> None:
    """Starts many runs that each wait for one event, with a deadline in an hour."""
    sides = {"paid": PAID, "late": {**PAID, "onTimeout": True}}
    await it.deploy(**{name: {"after": [{"step": "$trigger", "async": edge}]} for name, edge in sides.items()})
    await it.platform.send(it.events(MANY))
    await it.platform.until_idle()


def counts(it: Scripted) -> dict[str, int]:
    return {side: it.runner.started.count(("f", side)) for side in ("paid", "late")}


# --- deadlines -------------------------------------------------------------------------------------------------------


def test_an_event_wakes_in_the_last_millisecond_before_the_deadline(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await wait_for_payment(it)
        it.platform.clock.advance(HOUR_MS - 1)
        await it.send("paid")
        await it.platform.until_idle()
        assert counts(it) == {"paid": MANY, "late": 0}

    on_platform(tmp_path, test)


def test_an_event_exactly_at_the_deadline_wakes_no_run(tmp_path: Path) -> None:
    """The batch takes some of the timers, then the event. The other waits are still open, but not satisfied."""

    async def test(it: Scripted) -> None:
        await wait_for_payment(it)
        it.platform.clock.advance(HOUR_MS)
        await it.send("paid")
        await it.platform.until_idle()
        assert counts(it) == {"paid": 0, "late": MANY}

    on_platform(tmp_path, test)


@pytest.mark.parametrize(("before_ms", "side"), [(1, "paid"), (0, "late")])
def test_at_a_deadline_an_event_that_has_not_woken_yet_counts_if_it_came_before(
    tmp_path: Path, before_ms: int, side: str
) -> None:
    """With small batches, the deadlines pass while most waits have yet to be woken."""

    async def test(it: Scripted) -> None:
        await wait_for_payment(it)
        it.platform.clock.advance(HOUR_MS - before_ms)
        await it.send("paid")
        assert it.platform.store.unrouted
        it.platform.clock.advance(1)
        await it.platform.until_idle()
        assert counts(it) == {"paid": 0, "late": 0} | {side: MANY}

    on_platform(tmp_path, test, batch_facts=1)


def test_a_delay_ends_at_its_millisecond_not_with_an_earlier_batch(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(a={"after": [{"step": "$trigger", "wait": "1h"}]})
        await it.send()
        await it.platform.until_idle()
        it.platform.clock.advance(HOUR_MS - 1)
        await it.send("other")
        await it.platform.until_idle()
        assert it.runner.started == []
        it.platform.clock.advance(1)
        await it.send("other")
        await it.platform.until_idle()
        assert it.runner.started == [("f", "a")]

    on_platform(tmp_path, test)


# --- retention -------------------------------------------------------------------------------------------------------


def test_rows_are_deleted_one_millisecond_after_their_maximum_age(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy()
        await it.send()
        await it.send("nothing")
        await it.platform.until_idle()
        there = it.count("events"), it.count("runs"), it.count("attempts")
        assert there == (3, 1, 1)
        it.platform.clock.advance(30 * DAY_MS)
        await clean(it.platform, 30)
        assert (it.count("events"), it.count("runs"), it.count("attempts")) == there
        it.platform.clock.advance(1)
        await clean(it.platform, 30)
        assert (it.count("events"), it.count("runs"), it.count("attempts")) == (0, 0, 0)

    on_platform(tmp_path, test)


def test_the_age_of_a_run_counts_from_its_end(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy()
        await it.send()
        await until(lambda: it.runner.held)
        it.platform.clock.advance(10 * DAY_MS)
        it.runner.release()
        await it.platform.until_idle()
        it.platform.clock.advance(30 * DAY_MS)
        await clean(it.platform, 30)
        assert it.count("runs") == 1
        it.platform.clock.advance(1)
        await clean(it.platform, 30)
        assert it.count("runs") == 0

    on_platform(tmp_path, test, hold=True)


def test_an_unneeded_version_is_kept_as_long_as_runs(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy("f", "old")
        await it.deploy("f", "new")
        it.platform.clock.advance(30 * DAY_MS)
        await clean(it.platform, 30)
        assert it.count("versions") == 2
        it.platform.clock.advance(1)
        await clean(it.platform, 30)
        assert it.count("versions") == 1

    on_platform(tmp_path, test)

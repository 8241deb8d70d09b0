"""A wait whose `match` gives no key scans the events of its name, in pieces if there are many."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from stepwell.core.run.run import StepStatus
from tests.local.scripted import Scripted, scripted, until

MANY = 450  # events, more than two pieces
HOUR = 3_600_000
PAID = {"event": "paid", "match": "async.data.sum > 20", "ttl": "1h"}


def on_platform(folder: Path, test: Callable[[Scripted], Coroutine[None, None, None]]) -> None:
    async def main() -> None:
        async with scripted(folder) as it:
            await test(it)

    asyncio.run(main())


async def deploy(it: Scripted, **edge: Any) -> None:
    steps = {"b": PAID, "late": {**PAID, "onTimeout": True}}
    await it.deploy(**{name: {"after": [{"step": "$trigger", "async": item, **edge}]} for name, item in steps.items()})


async def pay(it: Scripted, *sums: int) -> None:
    events = [event for number in sums for event in it.events(1, "paid", data={"sum": number})]
    await it.platform.send(events)
    await it.platform.until_idle()


def ran(it: Scripted) -> list[str]:
    (detail,) = it.runs()
    return [
        step.id
        for step, state in zip(detail.plan.steps, detail.run.steps, strict=True)
        if state.status is StepStatus.COMPLETED
    ]


def test_an_unsatisfied_wait_ends_after_all_events_were_scanned(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await deploy(it)
        await it.send()
        await pay(it, *[1] * MANY)
        assert ran(it) == []
        await it.platform.travel(HOUR)
        assert ran(it) == ["late"]

    on_platform(tmp_path, test)


@pytest.mark.parametrize("place", [0, 199, 200, MANY - 1])
def test_an_event_before_the_wait_is_found_behind_many_others(tmp_path: Path, place: int) -> None:
    async def test(it: Scripted) -> None:
        await deploy(it, wait="10m")
        await it.send()
        await pay(it, *(21 if number == place else 1 for number in range(MANY)))
        await it.platform.travel(HOUR // 6)
        assert ran(it) == ["b"]

    on_platform(tmp_path, test)


def test_the_earliest_event_counts_although_another_comes_during_the_scan(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await deploy(it, wait="10m")
        await it.send()
        first, later = it.events(1, "paid", data={"sum": 30, "n": 1}), it.events(1, "paid", data={"sum": 40, "n": 2})
        await pay(it, *[1] * MANY)
        await it.platform.send(first)
        await it.platform.until_idle()
        it.platform.clock.advance(HOUR // 6)
        await it.platform.send(later)
        await until(lambda: ran(it) == ["b"])
        (detail,) = it.runs()
        assert [pause.event_id for pause in detail.run.pauses if pause.event_id] == [first[0].id]

    on_platform(tmp_path, test)


def test_the_number_of_events_scanned_at_once_is_limited(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await deploy(it)
        await it.send()
        await pay(it, *[1] * MANY)
        looked: list[str] = []
        it.platform.store.connection.set_trace_callback(looked.append)
        await it.platform.travel(HOUR)
        it.platform.store.connection.set_trace_callback(None)
        assert len([sql for sql in looked if "FROM events WHERE name" in sql]) == 3
        assert ran(it) == ["late"]

    on_platform(tmp_path, test)

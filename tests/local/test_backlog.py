"""More events than can be written at once: a batch takes whole requests, and others are answered in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from stepwell.core.events.events import event_from
from stepwell.core.run.run import RunStatus
from stepwell.local.engine.backlog import Backlog, Line
from stepwell.local.engine.batch_loop import Unavailable
from stepwell.platform import IncomingEvent
from tests.local.scripted import Scripted, scripted, until

Test = Callable[[Scripted], Coroutine[None, None, None]]


def on_platform(folder: Path, test: Test, **options: Any) -> None:
    async def main() -> None:
        async with scripted(folder, **options) as it:
            await test(it)

    asyncio.run(main())


class Turns:
    """Counts the iterations of the event loop during some work."""

    def __init__(self) -> None:
        self.count = 0

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(0)
            self.count += 1


@asynccontextmanager
async def watched() -> AsyncIterator[Turns]:
    turns = Turns()
    task = asyncio.create_task(turns.watch())
    try:
        yield turns
    finally:
        task.cancel()


def test_a_request_that_starts_many_runs_does_not_block_the_loop(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy()
        async with watched() as turns:
            await it.platform.send(it.events(1000))
        assert it.count("events WHERE name = 'go'") == 1000
        assert turns.count > 1
        await until(lambda: it.count("runs") == 1000)

    on_platform(tmp_path, test, hold=True)


def test_an_event_that_wakes_many_runs_does_not_block_the_loop(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(a={"after": [{"step": "$trigger", "async": {"event": "wake", "ttl": "1d"}}]})
        await it.platform.send(it.events(1500))
        async with watched() as turns:
            await it.send("wake")
        assert turns.count > 1
        await it.platform.until_idle()
        assert it.count("waits") == 0
        assert it.count("runs WHERE status = 1") == 1500

    on_platform(tmp_path, test, parallelism=100)


LONG = "data.list.map(x, x).size() == 1000"  # takes milliseconds for a list of a thousand


def test_slow_trigger_expressions_do_not_block_the_loop(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(on={"event": "go", "expression": LONG})
        async with watched() as turns:
            await it.platform.send(it.events(50, data={"list": [0] * 1000}))
        assert it.count("events WHERE name = 'go'") == it.count("runs") == 50
        assert turns.count > 5

    on_platform(tmp_path, test, hold=True)


def test_slow_edge_conditions_do_not_block_the_loop(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(a={"after": [{"step": "$trigger", "if": f"!({LONG})"}]})
        async with watched() as turns:
            await it.platform.send(it.events(50, data={"list": [0] * 1000}))
        assert it.count(f"runs WHERE status = {RunStatus.COMPLETED.value}") == 50
        assert turns.count > 5

    on_platform(tmp_path, test)


def test_slow_match_expressions_do_not_block_the_loop(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        match = LONG.replace("data", "async.data")
        await it.deploy(a={"after": [{"step": "$trigger", "async": {"event": "wake", "match": match, "ttl": "1d"}}]})
        await it.platform.send(it.events(50))
        async with watched() as turns:
            await it.send("wake", data={"list": [0] * 1000})
        assert it.count("waits") == 0
        assert turns.count > 5

    on_platform(tmp_path, test, hold=True)


def test_a_request_is_accepted_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy()
        sending = asyncio.ensure_future(it.platform.send(it.events(1000)))
        while not it.platform.store.connection.in_transaction:
            await asyncio.sleep(0)
        it.platform.store.connection.execute("PRAGMA query_only = 1")
        with pytest.raises(Unavailable):
            await sending
        it.platform.store.connection.execute("PRAGMA query_only = 0")
        assert it.count("events") == it.count("runs") == 0
        await it.send()
        await it.platform.until_idle()
        assert it.count("runs WHERE status = 1") == 1

    on_platform(tmp_path, test)


def test_requests_are_accepted_in_their_order_and_answered_when_they_are_durable(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy()
        answered: list[int] = []

        async def send(number: int) -> None:
            await it.platform.send(it.events(400, data={"n": number}))
            answered.append(number)
            assert it.count(f"events WHERE json_extract(body, '$.data.n') = {number}") == 400

        await asyncio.gather(*map(send, range(12)))
        assert answered == sorted(answered)
        rows = it.platform.store.connection.execute(
            "SELECT json_extract(body, '$.data.n') FROM events WHERE name = 'go' ORDER BY seq"
        )
        numbers = [number for (number,) in rows]
        assert numbers == sorted(numbers)
        await it.platform.until_idle()
        assert it.count("runs WHERE status = 1") == 4800

    on_platform(tmp_path, test, parallelism=50)


def test_small_requests_are_answered_while_a_large_one_is_written(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy()
        await it.deploy("other", on="small")
        large = [asyncio.ensure_future(it.platform.send(it.events(1000))) for _ in range(3)]
        await asyncio.sleep(0)
        await it.send("small")
        assert [task.done() for task in large] != [False] * 3 or it.count("runs WHERE function = 'other'") == 1
        await asyncio.gather(*large)

    on_platform(tmp_path, test, hold=True)


def test_cancelling_works_for_more_runs_than_fit_into_a_batch(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(a={"after": [{"step": "$trigger", "wait": "1d"}]})
        for _ in range(3):
            await it.platform.send(it.events(1000))
        await it.platform.until_idle()
        await it.platform.runs.cancel_all("f")
        assert it.count(f"runs WHERE status = {int(RunStatus.CANCELLED)}") == 3000

    on_platform(tmp_path, test)


def test_claims_of_the_current_batch_do_not_count_as_lost(tmp_path: Path) -> None:
    """A failed batch is tried again while the next one is in progress."""

    async def test(it: Scripted) -> None:
        await it.deploy()
        it.platform.store.connection.execute("PRAGMA query_only = 1")
        with pytest.raises(Unavailable):
            await it.send()
        it.platform.store.connection.execute("PRAGMA query_only = 0")
        await asyncio.gather(*(it.platform.send(it.events(1000)) for _ in range(3)))
        await until(lambda: len(it.runner.held) == 100)
        await asyncio.sleep(0)
        assert it.count("attempts WHERE status = 'lost'") == 0
        it.runner.hold = False
        it.runner.release()
        await until(lambda: it.count("runs WHERE status = 0") == 0)
        assert it.count("attempts") == it.count("attempts WHERE status = 'completed'") == 3000

    on_platform(tmp_path, test, hold=True, parallelism=100)


def test_exclusive_work_waits_for_the_batch(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy()
        sending = asyncio.ensure_future(it.platform.send(it.events(1000)))
        while not it.platform.store.connection.in_transaction:
            await asyncio.sleep(0)
        connection = it.platform.store.connection
        assert await it.platform.exclusively(lambda: connection.in_transaction) is False
        await sending
        await until(lambda: it.count("runs") == 1000)

    on_platform(tmp_path, test, hold=True)


def test_a_server_that_closes_finishes_the_current_batch(tmp_path: Path) -> None:
    sending: list[asyncio.Task[None]] = []

    async def test(it: Scripted) -> None:
        await it.deploy()
        sending.append(asyncio.ensure_future(it.platform.send(it.events(1000))))
        while not it.platform.store.connection.in_transaction:
            await asyncio.sleep(0)

    async def after(it: Scripted) -> None:
        await it.platform.until_idle()
        assert it.count("runs WHERE status = 1") == 1000

    on_platform(tmp_path, test, hold=True)
    assert sending[0].exception() is None
    on_platform(tmp_path, after, parallelism=50)


def test_a_future_resolves_when_all_earlier_items_were_taken() -> None:
    async def main() -> None:
        line, loop = Line[int](), asyncio.get_running_loop()
        first, second, third = (loop.create_future() for _ in range(3))
        line.wait(first)  # the line is empty
        line.add(range(15))
        line.wait(second)
        line.add([15])
        line.wait(third)
        assert line.take(10) == list(range(10))
        assert line.reached() == [first]
        assert line.take(10) == list(range(10, 16))
        assert line.reached() == [second, third]
        assert not line

    asyncio.run(main())


def test_items_that_are_given_back_are_waited_for_again() -> None:
    async def main() -> None:
        line, future = Line[int](), asyncio.get_running_loop().create_future()
        line.add([1, 2])
        line.wait(future)
        line.give_back(line.take(2))
        assert line.reached() == []
        assert line.take(2) == [1, 2]
        assert line.reached() == [future]

    asyncio.run(main())


def test_all_events_of_a_request_are_taken_or_none() -> None:
    backlog, event = Backlog(), IncomingEvent(event_from({"name": "go", "id": "e", "ts": 0}))
    backlog.requests.add([[event] * size for size in (20, 40, 1000, 5)])
    assert [len(backlog.take_arrivals(50)) for _ in range(4)] == [60, 1000, 5, 0]


def test_requests_behind_a_deferred_large_one_wait_too() -> None:
    backlog, event = Backlog(), IncomingEvent(event_from({"name": "go", "id": "e", "ts": 0}))
    backlog.requests.add([[event] * size for size in (20, 1000, 5)])
    assert [len(backlog.take_arrivals(50, largest=200)) for _ in range(2)] == [20, 0]
    assert [len(backlog.take_arrivals(50)) for _ in range(2)] == [1000, 5]

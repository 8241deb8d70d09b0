"""Waits that are found by their event's name alone: a run is read only if the event may satisfy the wait."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from stepwell.core.run.run import RunStatus
from stepwell.local.store.open_waits import FOUND_AT_ONCE
from tests.local.scripted import Scripted, scripted


def on_platform(folder: Path, test: Callable[[Scripted], Coroutine[None, None, None]]) -> None:
    async def main() -> None:
        async with scripted(folder) as it:
            await test(it)

    asyncio.run(main())


def waiting(match: str | None, event: str = "paid") -> dict[str, Any]:
    wait = {"event": event, "ttl": "1d", **({} if match is None else {"match": match})}
    return {"a": {"after": [{"step": "$trigger", "async": wait}]}}


def completed(it: Scripted) -> set[str]:
    return {run.event_id for run in it.runs() if run.run.status is RunStatus.COMPLETED}


async def start_many(it: Scripted, count: int, **data: Any) -> list[str]:
    return [await it.send(data={"n": number, **data}) for number in range(count)]


@pytest.mark.parametrize(
    "match",
    [
        "async.data.n > event.data.n",
        "!(async.data.n <= event.data.n)",
        "async.data.n > data.n && has(async.data.n)",  # partly decided by comparing
        "[async.data.n].exists(n, n > event.data.n)",  # not decided by comparing at all
        "async.data.n > data.n && size(data.text) > 0",
    ],
)
def test_an_event_wakes_those_whose_match_is_true(tmp_path: Path, match: str) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(**waiting(match))
        runs = await start_many(it, 120, text="x")
        await it.send("paid", data={"n": 70})
        await it.platform.until_idle()
        assert completed(it) == set(runs[:70])
        assert it.count("waits") == 50
        await it.send("paid", data={"n": "text"})
        await it.send("paid", data={})
        await it.platform.until_idle()
        assert completed(it) == set(runs[:70])

    on_platform(tmp_path, test)


def test_runs_of_unsatisfiable_waits_are_not_read(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(**waiting("async.data.n > event.data.n"))
        await start_many(it, 300)
        statements: list[str] = []
        it.platform.store.connection.set_trace_callback(statements.append)
        await it.send("paid", data={"n": 3})
        await it.platform.until_idle()
        it.platform.store.connection.set_trace_callback(None)
        reads = [
            statement
            for statement in statements
            if "FROM runs JOIN events" in statement and "WHERE runs.id" in statement
        ]
        assert (len(reads), len(completed(it))) == (3, 3)

    on_platform(tmp_path, test)


def test_more_than_a_page_of_waits_is_scanned(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(**waiting("async.data.n == event.data.n || async.data.all"))
        runs = await start_many(it, 1200)
        await it.send("paid", data={"n": 1199, "all": False})
        await it.platform.until_idle()
        assert completed(it) == {runs[1199]}
        await it.send("paid", data={"all": True, "n": 0})
        await it.platform.until_idle()
        assert completed(it) == set(runs)

    on_platform(tmp_path, test)


def test_waits_by_name_and_by_key_are_both_found(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy("name", on="go", **waiting("async.data.n >= event.data.n"))
        await it.deploy("key", on="go", **waiting("async.data.n == event.data.n"))
        await it.deploy("all", on="go", **waiting(None))
        for _ in range(FOUND_AT_ONCE + 5):
            await it.send(data={"n": 1})
        await it.send("paid", data={"n": 1})
        await it.platform.until_idle()
        assert {run.run.status for run in it.runs()} == {RunStatus.COMPLETED}
        assert it.count("waits") == 0

    on_platform(tmp_path, test)


def test_waits_store_few_values_and_are_always_found(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(**waiting("async.data.text > event.data.text"))
        small, large = await it.send(data={"text": "b"}), await it.send(data={"text": "c" * 3000})
        assert it.count("waits WHERE known IS NULL") == 1
        assert it.count("waits WHERE length(known) > 100") == 0
        await it.send("paid", data={"text": "c"})
        await it.platform.until_idle()
        assert completed(it) == {small}
        await it.send("paid", data={"text": "d"})
        await it.platform.until_idle()
        assert completed(it) == {small, large}

    on_platform(tmp_path, test)


def test_waits_of_an_earlier_stepwell_are_found(tmp_path: Path) -> None:
    def forget(connection: sqlite3.Connection, now: int) -> None:
        connection.execute("UPDATE waits SET known = NULL")

    async def test(it: Scripted) -> None:
        await it.deploy(**waiting("async.data.n > event.data.n"))
        runs = await start_many(it, 5)
        await it.platform.in_transaction(forget)
        await it.send("paid", data={"n": 2})
        await it.platform.until_idle()
        assert completed(it) == set(runs[:2])

    on_platform(tmp_path, test)


def test_functions_report_the_number_of_waits_found_by_name(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy("name", on="go", **waiting("async.data.n > event.data.n"))
        await it.deploy("key", on="go", **waiting("async.data.n == event.data.n"))
        await start_many(it, 4)
        assert {function.id: function.waits_by_name for function in it.queries.read_functions()} == {
            "name": 4,
            "key": 0,
        }
        await it.send("paid", data={"n": 2})
        await it.platform.until_idle()
        assert {function.id: function.waits_by_name for function in it.queries.read_functions()} == {
            "name": 2,
            "key": 0,
        }

    on_platform(tmp_path, test)

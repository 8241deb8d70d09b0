"""Functions that an event names but does not start: if many, they are stored once for all events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import orjson

from stepwell.core.cel.expressions import compile_expression
from stepwell.local.engine.retention import clean
from tests.local.scripted import Scripted, scripted

DAY_MS = 86_400_000
MANY = 30


def on_platform(folder: Path, test: Callable[[Scripted], Coroutine[None, None, None]]) -> None:
    async def main() -> None:
        async with scripted(folder) as it:
            await test(it)

    asyncio.run(main())


async def deploy_many(it: Scripted, suffix: str = "") -> None:
    for number in range(MANY):
        expression = f"data.kind == 'k{number}'{suffix}"
        await it.deploy(f"f-{number:02}", on={"event": "go", "expression": expression})


def not_started(it: Scripted, event_id: str) -> list[dict[str, Any]]:
    detail = it.queries.read_event(event_id)
    assert detail is not None
    missed: list[dict[str, Any]] = orjson.loads(detail.misses or b"[]")
    return missed


def all_but(*started: int, problem: str | None = None) -> list[dict[str, Any]]:
    return [
        {"function_id": f"f-{number:02}", "expression": f"data.kind == 'k{number}'", "problem": problem}
        for number in range(MANY)
        if number not in started
    ]


def test_functions_that_an_event_did_not_start_are_all_shown_and_stored_once(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await deploy_many(it)
        events = [await it.send(data={"kind": f"k{number}"}) for number in range(10)]
        nothing = await it.send(data={})
        for number, event in enumerate(events):
            assert not_started(it, event) == all_but(number)
        assert not_started(it, nothing) == all_but(problem='there is no key "kind"')
        assert [
            orjson.loads(event_detail.misses or b"[]")
            for event_detail in it.queries.read_events(name="go", limit=2).items
        ] == [
            not_started(it, nothing),
            all_but(9),
        ]
        assert it.count("trigger_tables") == 1
        assert it.count("events WHERE length(misses) > 300") == 0

    on_platform(tmp_path, test)


def test_an_event_shows_why_functions_did_not_start_when_it_came(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await deploy_many(it)
        before = await it.send(data={"kind": "other"})
        await deploy_many(it, " && has(data.x)")
        after = await it.send(data={"kind": "other"})
        assert not_started(it, before) == all_but()
        assert {miss["expression"][-15:] for miss in not_started(it, after)} == {" && has(data.x)"}
        assert it.count("trigger_tables") == 2

    on_platform(tmp_path, test)


def test_a_restarted_server_reuses_stored_tables(tmp_path: Path) -> None:
    async def before(it: Scripted) -> None:
        await deploy_many(it)
        await it.send(data={"kind": "k3"})

    async def after(it: Scripted) -> None:
        event = await it.send(data={"kind": "k4"})
        assert not_started(it, event) == all_but(4)
        assert it.count("trigger_tables") == 1

    on_platform(tmp_path, before)
    on_platform(tmp_path, after)


def test_a_restarted_server_compiles_only_functions_that_an_event_may_start(tmp_path: Path) -> None:
    async def before(it: Scripted) -> None:
        await deploy_many(it)

    async def after(it: Scripted) -> None:
        await it.send(data={"kind": "k4"})
        assert compile_expression.cache_info().misses == 1

    on_platform(tmp_path, before)
    compile_expression.cache_clear()
    on_platform(tmp_path, after)


def test_versions_of_an_earlier_stepwell_are_indexed_when_they_are_read(tmp_path: Path) -> None:
    async def before(it: Scripted) -> None:
        await deploy_many(it)
        await it.platform.in_transaction(lambda connection, now: connection.execute("UPDATE versions SET head = NULL"))

    async def after(it: Scripted) -> None:
        event = await it.send(data={"kind": "k4"})
        assert (len(it.runs(event)), not_started(it, event)) == (1, all_but(4))
        assert it.count("versions WHERE head IS NULL") == 0

    on_platform(tmp_path, before)
    on_platform(tmp_path, after)


def test_duplicate_idempotency_values_and_false_expressions_are_shown_together(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await deploy_many(it)
        await it.deploy("once", idempotency="event.data.order")
        first, again = [await it.send(data={"kind": "k1", "order": 7}) for _ in range(2)]
        (run,) = [run.run.id for run in it.runs(first) if run.plan.function_id == "once"]
        assert not_started(it, first) == all_but(1)
        assert not_started(it, again)[:-1] == all_but(1)
        assert (not_started(it, again)[-1]["function_id"], not_started(it, again)[-1]["run_id"]) == ("once", run)

    on_platform(tmp_path, test)


def test_unused_tables_are_deleted(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await deploy_many(it)
        await it.send(data={"kind": "old"})
        await deploy_many(it, " && has(data.x)")
        it.platform.clock.advance(31 * DAY_MS)
        event = await it.send(data={"kind": "new"})
        await clean(it.platform, 30)
        assert (it.count("trigger_tables"), len(not_started(it, event))) == (1, MANY)
        it.platform.clock.advance(31 * DAY_MS)
        last = await it.send("other")
        await clean(it.platform, 30)
        assert (it.count("trigger_tables"), not_started(it, last)) == (0, [])
        again = await it.send(data={"kind": "again"})
        assert len(not_started(it, again)) == MANY

    on_platform(tmp_path, test)


def test_of_many_functions_that_an_event_did_not_start_some_are_read(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await deploy_many(it)
        await it.send(data={"kind": "k29"})
        await it.platform.until_idle()
        (event, runs), *_ = it.queries.read_tail(0, 10)
        missed = orjson.loads(event.misses or b"")
        assert (list(runs), 20 < len(missed) < MANY - 1) == (["f-29"], True)
        assert missed == all_but(29)[: len(missed)]

    on_platform(tmp_path, test)

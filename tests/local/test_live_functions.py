"""The catalog of live functions is updated function by function, and stays correct after any change."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stepwell.core.events.events import Event, event_from
from stepwell.core.routing.triggers import Catalog
from stepwell.core.routing.versions import Routing, paused, promoted, resumed, rolled_back, with_canary
from stepwell.local.engine.platform import LocalPlatform
from stepwell.local.store.functions import Functions
from tests.local.scripted import Scripted, scripted

Wait = dict[str, Any]


def on_platform(folder: Path, test: Callable[[Scripted], Coroutine[None, None, None]]) -> None:
    async def main() -> None:
        async with scripted(folder) as it:
            await test(it)

    asyncio.run(main())


async def deploy_many(it: Scripted, count: int) -> None:
    for number in range(count):
        await it.deploy(f"f-{number:03}", on={"event": "go", "expression": f"data.kind == 'k{number}'"})


def waiting(event: str, match: str | None = None) -> Wait:
    wait = {"event": event, "ttl": "1d"} if match is None else {"event": event, "match": match, "ttl": "1d"}
    return {"after": [{"step": "$trigger", "async": wait}]}


@contextmanager
def statements(platform: LocalPlatform) -> Iterator[list[str]]:
    """The statements that the server executes meanwhile."""
    executed: list[str] = []
    platform.store.connection.set_trace_callback(executed.append)
    yield executed
    platform.store.connection.set_trace_callback(None)


# --- cost ------------------------------------------------------------------------------------------------------------


def test_an_event_compiles_only_the_functions_that_it_starts(tmp_path: Path) -> None:
    async def before(it: Scripted) -> None:
        await deploy_many(it, 30)

    async def after(it: Scripted) -> None:
        with statements(it.platform) as executed:
            event = await it.send(data={"kind": "k7"})
            await it.platform.until_idle()
        assert [detail.plan.function_id for detail in it.runs(event)] == ["f-007"]
        assert len([sql for sql in executed if "definition" in sql]) == 1

    on_platform(tmp_path, before)
    on_platform(tmp_path, after)


def test_a_prepared_server_reads_no_function_for_an_event(tmp_path: Path) -> None:
    async def before(it: Scripted) -> None:
        await deploy_many(it, 30)

    async def after(it: Scripted) -> None:
        await it.platform.prepare()
        with statements(it.platform) as executed:
            await it.send(data={"kind": "none"})
        assert [sql for sql in executed if "FROM functions" in sql or "FROM versions" in sql] == []

    on_platform(tmp_path, before)
    on_platform(tmp_path, after)


def test_the_cost_of_a_change_does_not_depend_on_the_number_of_functions(tmp_path: Path) -> None:
    counts: list[int] = []

    async def test(it: Scripted) -> None:
        for count in (3, 40):
            await deploy_many(it, count)
            await it.platform.prepare()
            with statements(it.platform) as executed:
                await it.deploy("changed", on="other", **{f"step-{count}": {}})
                await it.send("other")
                await it.platform.until_idle()
            counts.append(len(executed))

    on_platform(tmp_path, test)
    assert counts[1] <= counts[0] + 2


# --- contents --------------------------------------------------------------------------------------------------------

NAMES = ("go", "go.on", "paid", "sent", "stepwell/run.completed")
EVENTS = [
    event_from({"id": f"{name}-{n}", "name": name, "ts": 0, "data": {"kind": f"k{n}", "order": n}})
    for name in NAMES
    for n in range(3)
]


def test_after_any_changes_the_catalog_equals_that_of_a_restarted_server(tmp_path: Path) -> None:
    """One difference: an event that only ended runs of a replaced version awaited stays awaited until the function
    changes."""

    async def test(it: Scripted) -> None:
        choose = random.Random(7)
        for _ in range(150):
            await changed(it, choose)
            catalog, anew = it.platform.store.catalog(), Functions(it.platform.store.connection).catalog()
            assert started(catalog) == started(anew)
            assert awaited(catalog) >= awaited(anew)

    on_platform(tmp_path, test)


async def changed(it: Scripted, choose: random.Random) -> None:
    """One of many changes, to one of a few functions."""
    function, versions = f"f-{choose.randrange(5)}", it.platform.store.functions
    routing = versions.routing(function)
    kind = choose.randrange(7)
    if routing is None or routing.live is None or kind < 3:
        event, name = choose.choice(["go", "go*", "paid"]), choose.choice(["paid", "sent"])
        match = choose.choice([None, "async.data.order == event.data.order", "async.data.order > 1"])
        on = {"event": event, "expression": f"data.kind == 'k{choose.randrange(3)}'"}
        await it.deploy(function, on=on if choose.random() < 0.5 else event, a=waiting(name, match))
    elif kind == 3:
        await it.platform.registration.retire([function])
    elif kind == 4:
        await it.send(choose.choice(["go", "paid"]), data={"kind": "k1", "order": 1})
    else:
        await it.platform.registration.change_routing(
            function, lambda value, numbers, now: other(value, numbers, now, choose)
        )


def other(routing: Routing, versions: Any, now: int, choose: random.Random) -> Routing:
    if routing.is_paused:
        return resumed(routing)
    if routing.canary is not None:
        return promoted(routing, None, now) if choose.random() < 0.5 else rolled_back(routing, None, versions)
    if len(versions) > 1 and choose.random() < 0.7:
        return with_canary(routing, min(set(versions) - {routing.live}), 0.5, None, False, now)
    return paused(routing, drop=choose.random() < 0.5)


def started(catalog: Catalog) -> list[Any]:
    """All that a catalog contains about started functions."""
    is_triggered = [catalog.is_triggered_by(name) for name in NAMES]
    is_paused = [(name, catalog.is_paused(name)) for name in sorted(catalog.live)]
    return [is_paused, catalog.triggers, is_triggered, [started_by(catalog, event) for event in EVENTS]]


def started_by(catalog: Catalog, event: Event) -> list[Any]:
    plans, misses = catalog.starts(event)
    versions = sorted((plan.function_id, plan.version) for plan in plans)
    return [versions, sorted((miss.function_id, miss.expression, str(miss.problem)) for miss in misses)]


def awaited(catalog: Catalog) -> set[Any]:
    """All that a catalog contains about awaited events."""
    keys = {key for event in EVENTS for key in catalog.keys(event)}
    return {
        *filter(catalog.is_awaited, NAMES),
        *keys,
        *(event.id for event in EVENTS if catalog.is_awaited_by_name(event)),
    }


def test_a_replaced_version_awaits_events_while_it_has_runs(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(a=waiting("paid"))
        event = await it.send()
        await it.deploy(a=waiting("sent"))
        assert it.platform.store.catalog().is_awaited("paid")
        await it.send("paid")
        await it.platform.until_idle()
        (run,) = it.runs(event)
        assert run.run.ended_at is not None
        await it.deploy(a=waiting("other"))
        assert not it.platform.store.catalog().is_awaited("paid")

    on_platform(tmp_path, test)

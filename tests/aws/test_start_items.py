"""What a cold start reads of many functions: the start items, and the definitions of those that an event starts."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from stepwell.aws import clients
from stepwell.aws.functions.registry import Registry
from stepwell.aws.functions.releases import Releases
from stepwell.aws.functions.versions import NewVersion
from stepwell.aws.resources import Resources
from stepwell.aws.table.items import put_items, read_item
from stepwell.aws.table.keys import FUNCTIONS_STATE, function_key, starts_key
from stepwell.aws.table.start_items import put_starts, read_routes
from stepwell.core.cel.expressions import compile_expression
from stepwell.core.compile import compile_plan
from stepwell.core.definition.definition import parse_definition
from stepwell.core.events.events import Event, event_from
from stepwell.core.routing.versions import Release, deleted, paused
from stepwell.testing.account import meter
from stepwell.testing.account.meter import metered
from stepwell.testing.batches import Json, handler_step


@pytest.fixture(autouse=True)
def counted(resources: Resources) -> None:
    meter.attach(clients.client("dynamodb"))


def an_event(name: str, number: int = 0) -> Event:
    return event_from({"name": name, "data": {"n": number}, "user": {}, "id": f"{name}{number}", "ts": 1, "v": None})


def push(
    resources: Resources,
    id: str,
    on: str,
    release: Release | None = None,
    expression: str = "event.data.n < 100",
    **fields: object,
) -> Json:
    trigger = {"event": on, "expression": expression}
    raw = {"id": id, "triggers": [trigger], "steps": {"a": handler_step(), "b": handler_step("a")}, **fields}
    definition: Json = parse_definition(raw).normalised()
    releases = Releases(resources)
    releases.stage(definition)
    releases.register(NewVersion(definition, {"a": {}}, {}, "", "", "stepwell.json"), 1, release or Release())
    return definition


def started(registry: Registry, names: Sequence[str]) -> list[tuple[str, str, int]]:
    """The versions that start for some events of each name."""
    catalog = registry.catalog()
    events = [an_event(name, number) for name in names for number in range(0, 120, 7)]
    return [(event.id, plan.function_id, plan.version) for event in events for plan in catalog.starts(event)[0]]


def test_of_500_functions_a_sandbox_reads_what_starts_them_and_the_definition_of_one_that_starts(
    resources: Resources,
) -> None:
    push(resources, "f0", "other")
    row = read_item(resources.table, starts_key("f0"))
    function = read_item(resources.table, function_key("f0"))
    assert row is not None
    assert function is not None
    put_items(resources.table, [{**row, **starts_key(f"f{n}")} for n in range(1, 499)])
    put_items(resources.table, [{**function, **function_key(f"f{n}")} for n in range(1, 499)])
    push(resources, "mine", "go")
    with metered() as cold:
        registry = Registry(resources)
        (plan,) = registry.catalog().starts(an_event("go"))[0]
    assert plan.function_id == "mine"
    assert len(registry.catalog().live) == 500
    assert cold.operations() == {"dynamodb.GetItem": 2, "dynamodb.Query": 1}  # the state, a definition; all start items
    assert cold.read_units < 40
    assert meter.item_size(row) < 0.4 * meter.item_size(function)


def test_what_starts_is_the_same_whichever_items_are_read(resources: Resources) -> None:
    push(resources, "canary", "go")
    push(resources, "canary", "go", Release(weight=0.5), name="new")
    push(resources, "paused", "go")
    push(resources, "deleted", "go")
    push(resources, "prefix", "g*")
    registry = Registry(resources)
    releases = Releases(resources, registry)
    releases.change_routing("paused", lambda old, versions, now: paused(old, drop=True), 2)
    releases.change_routing("deleted", lambda old, versions, now: deleted(old), 2)
    from_starts = started(Registry(resources), ["go", "gone", "other"])
    forget_what_starts(resources)
    from_functions = started(Registry(resources), ["go", "gone", "other"])
    assert sorted(from_starts) == sorted(from_functions)
    assert {(function, version) for _, function, version in from_starts} == {
        ("canary", 1), ("canary", 2), ("prefix", 1)
    }  # fmt: skip


def forget_what_starts(resources: Resources) -> None:
    """As after a change by an earlier version of Stepwell, which writes the state without the mark."""
    item = read_item(resources.table, FUNCTIONS_STATE)
    assert item is not None
    item.pop("st")
    put_items(resources.table, [{**item, "g": {"N": str(int(item["g"]["N"]) + 1)}}])


def test_after_a_push_by_an_earlier_version_all_of_the_functions_are_read_until_the_next_push(
    resources: Resources,
) -> None:
    push(resources, "f", "old")
    push(resources, "f", "new")
    stale = read_item(resources.table, starts_key("f"))
    assert stale is not None
    put_items(resources.table, [{**stale, "live": {"N": "1"}, "rev": {"N": "1"}, "t": {"B": b'{"1":[["old"]]}'}}])
    forget_what_starts(resources)
    assert [version for _, _, version in started(Registry(resources), ["new"])] == [2] * 15
    push(resources, "g", "other")
    assert read_item(resources.table, FUNCTIONS_STATE)["st"] == read_item(resources.table, FUNCTIONS_STATE)["g"]  # type: ignore[index]
    assert [version for _, _, version in started(Registry(resources), ["new"])] == [2] * 15


def test_a_warm_sandbox_learns_of_a_push_by_one_small_item(resources: Resources) -> None:
    push(resources, "f", "go")
    warm = Registry(resources, time.monotonic)
    assert started(warm, ["go"])
    warm.expire()
    with metered() as unchanged:
        assert started(warm, ["go"])
    assert unchanged.operations() == {"dynamodb.GetItem": 1}
    push(resources, "f", "go", name="new")
    warm.expire()
    assert {version for _, _, version in started(warm, ["go"])} == {2}


def test_a_sandbox_reads_by_what_triggers_are_found_and_compiles_what_an_event_may_start(resources: Resources) -> None:
    for number in range(3):
        push(resources, f"f{number}", "go", expression=f"event.data.n == {number} && has(event.id)")
    push(resources, "small", "go")
    compiled = compile_expression.cache_info().misses
    for route, number in zip(read_routes(resources.table), range(3), strict=False):
        (trigger,) = route.live.triggers
        assert trigger.index is not None
        assert (trigger.index.paths, trigger.index.values) == ((("data", "n"),), ((number,),))
    assert compile_expression.cache_info().misses == compiled
    assert [
        (event, function) for event, function, _ in started(Registry(resources), ["go"]) if function != "small"
    ] == [("go0", "f0")]


def test_an_item_without_indexes_as_earlier_versions_wrote_it_starts_the_same(resources: Resources) -> None:
    push(resources, "f", "go", expression="event.data.n == 7")
    expected = started(Registry(resources), ["go"])
    row = read_item(resources.table, starts_key("f"))
    assert row is not None
    put_items(resources.table, [{name: value for name, value in row.items() if name != "ix"}])
    assert started(Registry(resources), ["go"]) == expected == [("go7", "f", 1)]


def test_a_push_that_is_overtaken_by_a_newer_one_does_not_replace_what_it_wrote(resources: Resources) -> None:
    definition = push(resources, "f", "old")
    overtaken = read_item(resources.table, function_key("f"))
    assert overtaken is not None
    push(resources, "f", "new")
    put_starts(resources.table, overtaken, [compile_plan(definition, 1)])
    (route,) = read_routes(resources.table)
    assert [trigger.event for trigger in route.live.triggers] == ["new"]
    assert [row[1:] for row in started(Registry(resources), ["old", "new"])] == [("f", 2)] * 15

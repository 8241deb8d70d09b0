"""The cache of functions in a Lambda, and how old it may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest

from stepwell.aws import clients
from stepwell.aws.functions.registry import Registry
from stepwell.aws.functions.releases import Releases
from stepwell.aws.functions.versions import NewVersion, Target
from stepwell.aws.resources import Resources
from stepwell.aws.table.items import read_partition
from stepwell.core.definition.definition import parse_definition
from stepwell.core.routing.versions import (
    Canary,
    Release,
    Routing,
    RoutingChange,
    State,
    deleted,
    paused,
    promoted,
    rolled_back,
)
from stepwell.testing.batches import Batches, Crash

DEFINITION = parse_definition({"id": "f", "triggers": [{"event": "go"}]}).normalised()


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def push(resources: Resources, target: Target) -> int:
    """Registers the only function with this target. Returns the version that it has then."""
    new = NewVersion(DEFINITION, {"step-1": target}, {}, "", "", "stepwell.json")
    return Releases(resources).register(new, 1).version


def test_to_retire_what_nobody_registered_changes_nothing(resources: Resources) -> None:
    registry = Registry(resources)
    Releases(resources, registry).retire(["nobody"])
    assert registry.functions() == []
    assert registry.catalog().live == {}


def test_a_retired_function_stays_known(resources: Resources) -> None:
    push(resources, {"lambda": "one"})
    registry = Registry(resources)
    Releases(resources, registry).retire(["f"])
    assert [(row.id, row.live) for row in registry.functions()] == [("f", None)]
    assert registry.version("f", 1).targets == {"step-1": {"lambda": "one"}}


@pytest.mark.parametrize(
    ("ask", "routing"),
    [
        (lambda old, versions, now: promoted(old, None, now), Routing(3, previous=2)),
        (lambda old, versions, now: rolled_back(old, None, versions), Routing(2, previous=1)),
        (lambda old, versions, now: rolled_back(old, 1, versions), Routing(1)),
        (lambda old, versions, now: paused(old, drop=False), Routing(2, Canary(3, 0.1, since=9), State.PAUSED, 1)),
        (lambda old, versions, now: deleted(old), Routing(None, state=State.DELETED)),
    ],
    ids=["promote", "rollback", "rollback to", "pause", "delete"],
)
def test_a_change_that_was_interrupted_anywhere_can_be_asked_for_again(
    new_account: Callable[[], Resources], ask: RoutingChange, routing: Routing
) -> None:
    for crash_at in count():
        batches = Batches(new_account())
        for n, release in ((1, Release()), (2, Release()), (3, Release(weight=0.1))):
            definition = {**DEFINITION, "name": f"v{n}"}
            batches.session.releases.register(NewVersion(definition, {}, {}, "", "", "stepwell.json"), 9, release)
        batches.requests.clear()
        batches.crash_at = crash_at
        try:
            batches.session.releases.change_routing("f", ask, 10)
        except Crash:
            batches.start()
            batches.session.releases.change_routing("f", ask, 11)
        crashed, batches.crash_at = batches.crash_at is None, None
        (row,) = Registry(batches.resources).functions()
        assert (row.routing, row.pending) == (routing, False), crash_at
        assert [plan.version for plan in Registry(batches.resources).catalog().live.values()] == [
            number for number in [routing.live] if number is not None
        ]
        if not crashed:
            break
    assert crash_at > 5


def test_what_runs_an_unchanged_version_is_looked_at_again_after_a_minute(
    resources: Resources, requests: list[str]
) -> None:
    assert push(resources, {"lambda": "old"}) == 1
    clock = Clock()
    warm = Registry(resources, clock)
    assert warm.version("f", 1).targets == {"step-1": {"lambda": "old"}}
    assert push(resources, {"lambda": "new"}) == 1
    requests.clear()
    clock.now += 59
    assert warm.version("f", 1).targets == {"step-1": {"lambda": "old"}}
    assert requests == []
    clock.now += 1
    assert warm.version("f", 1).targets == {"step-1": {"lambda": "new"}}
    clock.now += 60
    requests.clear()
    assert warm.version("f", 1).targets == {"step-1": {"lambda": "new"}}
    assert requests == ["GetItem"]  # nothing has changed


def test_whoever_starts_runs_knows_what_runs_them_as_soon_as_the_functions(resources: Resources) -> None:
    push(resources, {"lambda": "old"})
    clock = Clock()
    warm = Registry(resources, clock)
    assert warm.catalog().live.keys() == {"f"}
    push(resources, {"lambda": "new"})
    clock.now += resources.cache_s
    assert warm.catalog().live.keys() == {"f"}
    assert warm.version("f", 1).targets == {"step-1": {"lambda": "new"}}


def a_version(cron: str) -> dict[str, Any]:
    definition: dict[str, Any] = parse_definition({"id": "f", "triggers": [{"cron": cron}]}).normalised()
    return definition


@pytest.mark.parametrize("before", ["GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query"])
def test_of_two_pushes_at_the_same_time_the_newer_version_is_live_with_its_cron_triggers(
    resources: Resources, before: str
) -> None:
    """The second version is created and released just before the last such request of the first."""
    triggers = ["0 1 * * *", "0 2 * * *", "0 3 * * *"]
    Releases(resources).register(NewVersion(a_version(triggers[0]), {}, {}, "", "", "stepwell.json"), 1)
    made = clients.client("dynamodb").meta.events
    seen: list[int] = []

    def push_first(at: int | None) -> int:
        """Pushes, with the second push just before the request of this number. Returns the number of such requests."""
        seen.clear()

        def look(**_: Any) -> None:
            seen.append(0)
            if len(seen) - 1 == at:
                made.unregister(f"before-call.dynamodb.{before}", look)
                Releases(resources).register(NewVersion(a_version(triggers[2]), {}, {}, "", "", "stepwell.json"), 3)

        made.register(f"before-call.dynamodb.{before}", look)
        Releases(resources).register(NewVersion(a_version(triggers[1]), {}, {}, "", "", "stepwell.json"), 2)
        made.unregister(f"before-call.dynamodb.{before}", look)
        return len(seen)

    number = 0
    while number < push_first(number):
        registry = Registry(resources)
        (row,) = registry.functions()
        versions = dict(registry.versions("f"))
        assert row.live == max(versions)
        assert registry.catalog().live["f"].version == row.live
        assert row.live is not None
        ((cron,),) = [[t.cron for t in versions[row.live].plan.triggers]]
        rows = read_partition(resources.table, "C")
        assert [row["sk"]["S"] for row in rows] == [f"f#{cron}#UTC"], f"before {before} {number}"
        Releases(resources).register(NewVersion(a_version(f"{number} 4 * * *"), {}, {}, "", "", "stepwell.json"), 4)
        number += 1

"""A guarded canary on AWS: which runs count, and that a verdict does not override a change by a person."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import pytest

from stepwell.aws import clients
from stepwell.aws.engine.session import now_ms
from stepwell.aws.functions.versions import NewVersion
from stepwell.aws.table.samples import read_samples
from stepwell.core.definition.definition import parse_definition
from stepwell.core.routing.versions import Release, Routing, State, paused
from stepwell.core.run.run import RunStatus
from stepwell.testing.batches import Batches, Process, handler_step

MINUTE_S = 60


def push(batches: Batches, name: str, release: Release) -> None:
    raw = {"id": "f", "triggers": [{"event": "go"}], "steps": {"a": handler_step(name=name)}}
    definition = parse_definition(raw).normalised()
    new = NewVersion(definition, {"a": {"lambda": name}}, {}, "", "", "stepwell.json")
    batches.session.releases.register(new, now_ms(), release)
    batches.start()


def with_canary(batches: Batches) -> None:
    """Both versions have enough runs for a verdict."""
    push(batches, "one", Release())
    push(batches, "two", Release(weight=0.5, guarded=True))
    for number in range(40):
        batches.send(id=f"event {number}")
    batches.drain()


def routing(batches: Batches) -> Routing:
    found = batches.session.registry.routing("f")
    assert found is not None
    return found


def looks(batches: Batches) -> int:
    canary = routing(batches).canary
    assert canary is not None
    assert canary.guard is not None
    return canary.guard.looks


def tick(batches: Batches, clock: Any) -> None:
    clock.shift(3 * MINUTE_S)  # the interval after which a guarded canary is checked
    batches.scheduler.tick()


def pause(old: Routing, versions: Collection[int], now: int) -> Routing:
    return paused(old, drop=False)


def test_a_guarded_canary_is_looked_at_by_its_runs(batches: Batches, clock: Any) -> None:
    with_canary(batches)
    assert looks(batches) == 0
    tick(batches, clock)
    assert looks(batches) == 1


def test_what_somebody_changes_while_a_canary_is_judged_stays_changed(batches: Batches, clock: Any) -> None:
    with_canary(batches)
    change: list[Callable[[], object]] = [
        lambda: Process(batches.resources).control.change_routing("f", pause),
    ]

    def meanwhile(**_: Any) -> None:
        while change:
            change.pop()()

    events = clients.client("dynamodb").meta.events
    events.register("before-call.dynamodb.BatchGetItem", meanwhile, unique_id="meanwhile")  # of the runs
    try:
        tick(batches, clock)
    finally:
        events.unregister("before-call.dynamodb.BatchGetItem", unique_id="meanwhile")
    assert not change
    assert routing(batches).state is State.PAUSED
    assert looks(batches) == 0


@pytest.mark.parametrize("limit", [1, 2, 10])
def test_versions_are_compared_by_the_newest_runs_that_events_started(batches: Batches, clock: Any, limit: int) -> None:
    """Reruns and replays do not count, because people choose them."""
    answers = iter([{"status": 400}, {}, {}, {}, {}])
    batches.answer = lambda ctx: next(answers)
    push(batches, "one", Release())
    batches.deploy({"a": handler_step()}, on="else", id="other")
    for name in ("go", "go", "else"):
        clock.shift(1)
        event_id = batches.send(name)
        batches.drain()
    (first, *_) = sorted((stored for stored, _ in batches.runs()), key=lambda stored: stored.position)
    clock.shift(1)
    batches.control.rerun(first.run.id)
    batches.control.replay("f", 1, [event_id], "again")
    batches.drain()
    found = read_samples(batches.resources.table, batches.session.store.lists, "f", limit)
    newest = [(1, RunStatus.COMPLETED), (1, RunStatus.FAILED)]
    if limit < 10:
        assert found == []  # the newest runs are of another kind
    else:
        assert [(sample.version, sample.status) for sample in found] == newest
        assert all(sample.ended_at == sample.created_at for sample in found)
        assert found[0].created_at == found[1].created_at + 1000

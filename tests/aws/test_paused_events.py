"""Events that are kept for a paused function: none is lost and none runs twice, despite crashes and old caches."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import count
from typing import Any

import orjson
import pytest

from stepwell.aws.queues.messages import cancel_message, release_message
from stepwell.aws.resources import Resources
from stepwell.aws.table.keys import paused_events_partition
from stepwell.core.routing.versions import Routing, State, deleted, deployed, paused, resumed
from stepwell.core.run.run import RunStatus
from stepwell.testing.batches import Batches, Crash, Process, handler_step
from stepwell.testing.platform import START
from tests.aws.beginnings import Beginning
from tests.aws.test_sweep import failing

STEPS = {"a": handler_step()}


def pause(old: Routing, versions: Collection[int], now: int) -> Routing:
    return paused(old, drop=False)


def resume(old: Routing, versions: Collection[int], now: int) -> Routing:
    return resumed(old)


def kept(batches: Batches) -> list[Any]:
    values = {":pk": {"S": paused_events_partition("f")}}
    items: list[Any] = batches.outside_db.query(
        TableName=batches.resources.table, KeyConditionExpression="pk = :pk", ExpressionAttributeValues=values
    )["Items"]
    return items


def events_of_runs(batches: Batches) -> list[str]:
    assert all(run.run.status is RunStatus.COMPLETED for run, _ in batches.runs())
    return sorted(run.event_id for run, _ in batches.runs())


def paused_with(batches: Batches, events: int) -> list[str]:
    """The ids of events that were routed while the function was paused."""
    batches.deploy(STEPS)
    batches.control.change_routing("f", pause)
    ids = sorted(batches.send() for _ in range(events))
    while batches.route():
        pass
    assert len(kept(batches)) == events
    assert not batches.runs()
    return ids


def test_many_are_routed_a_page_at_a_time(resources: Resources) -> None:
    batches = Batches(resources)
    ids = paused_with(batches, 60)
    batches.control.change_routing("f", resume)
    batches.drain()
    assert events_of_runs(batches) == ids
    assert kept(batches) == []


def test_a_crash_before_any_request_loses_and_doubles_nothing(new_account: Callable[[], Resources]) -> None:
    """A crash while events are stored, and while they are released."""
    beginning = Beginning(lambda batches: paused_with(batches, 0))
    for crash_at in count():
        batches = Batches(new_account())
        beginning.tell(batches)
        batches.crash_at = crash_at
        ids = {batches.send() for _ in range(2)}
        while batches.route():
            pass
        still = batches.crash_at is not None
        batches.control.change_routing("f", resume) if not still else resumed_with_crash(batches)
        batches.drain()
        crashed, batches.crash_at = batches.crash_at is None, None
        found = [run.event_id for run, _ in batches.runs()]
        assert sorted(found) == sorted(ids), crash_at
        if not crashed:
            break
    assert crash_at > 8


def resumed_with_crash(batches: Batches) -> None:
    """A client that resumes a function tries again if there is no answer."""
    try:
        batches.control.change_routing("f", resume)
    except Crash:
        batches.start()
        batches.control.change_routing("f", resume)


def test_a_router_that_has_not_heard_of_the_resume_does_not_keep_an_event_for_ever(resources: Resources) -> None:
    batches = Batches(resources)
    paused_with(batches, 1)
    late = batches.process  # in the cache the function stays paused for an hour
    Process(batches.resources).control.change_routing("f", resume)
    batches.start()
    batches.drain()
    batches.process = late
    late_event = batches.send()
    batches.route()
    assert len(kept(batches)) == 1
    batches.start()
    batches.drain()
    assert late_event in events_of_runs(batches)
    assert len(batches.runs()) == 2


def test_a_message_that_asks_for_what_is_kept_does_nothing_while_the_function_is_paused(resources: Resources) -> None:
    batches = Batches(resources)
    paused_with(batches, 2)
    batches.put_outcome(orjson.loads(release_message("f", None)))
    batches.drain()
    assert len(kept(batches)) == 2


def test_what_is_kept_for_a_deleted_function_is_forgotten(resources: Resources) -> None:
    batches = Batches(resources)
    paused_with(batches, 30)
    batches.control.change_routing("f", lambda old, versions, now: deleted(old))
    batches.drain()
    assert kept(batches) == []
    assert batches.runs() == []


@pytest.mark.parametrize("is_deleted", [False, True])
def test_nobody_else_can_have_the_runs_of_a_function_cancelled(resources: Resources, is_deleted: bool) -> None:
    batches = Batches(resources)
    batches.deploy({"a": handler_step({"step": "$trigger", "wait": "10m"})})
    batches.send()
    batches.drain()
    token = batches.session.tokens.of("f", "cancel", 0)
    if is_deleted:
        batches.control.change_routing("f", lambda old, versions, now: deleted(old))
        token = "0" * len(token)
    batches.put_outcome(orjson.loads(cancel_message("f", None, token)))
    batches.drain()
    ((run, _),) = batches.runs()
    assert run.run.status is RunStatus.RUNNING


def test_a_routing_that_was_changed_at_the_same_time_is_decided_again(resources: Resources) -> None:
    batches = Batches(resources)
    batches.deploy(STEPS)
    seen: list[Routing] = []

    def change(old: Routing, versions: Collection[int], now: int) -> Routing:
        seen.append(old)
        if len(seen) == 1:
            Process(batches.resources).control.change_routing("f", pause)
        return deployed(old, 1)

    assert batches.control.change_routing("f", change).state is State.PAUSED
    assert [routing.state for routing in seen] == [State.ON, State.PAUSED]


def test_an_event_that_could_not_be_kept_comes_again(resources: Resources) -> None:
    batches = Batches(resources)
    batches.deploy(STEPS)
    batches.control.change_routing("f", pause)
    event_id = batches.send()
    with failing(
        "dynamodb",
        "PutItem",
        "ProvisionedThroughputExceededException",
        lambda body: paused_events_partition("f") in body,
    ):
        batches.route()
    assert kept(batches) == []
    batches.drain()  # the message is visible again
    assert len(kept(batches)) == 1
    batches.control.change_routing("f", resume)
    batches.drain()
    assert events_of_runs(batches) == [event_id]


def test_events_are_routed_though_whoever_resumed_the_function_died_and_asks_never_again(
    new_account: Callable[[], Resources], clock: Any
) -> None:
    beginning = Beginning(lambda batches: paused_with(batches, 2))
    for crash_at in count():
        clock.move_to(START)
        batches = Batches(new_account())
        ids = beginning.tell(batches)
        batches.crash_at = crash_at
        try:
            batches.control.change_routing("f", resume)
        except Crash:
            batches.start()
        if batches.crash_at is not None:
            break
        batches.drain()
        clock.shift(10)
        batches.drain()
        routing = batches.session.registry.routing("f")
        is_resumed = routing is not None and not routing.is_paused
        assert events_of_runs(batches) == (ids if is_resumed else []), crash_at
    assert crash_at > 8


def test_a_resume_that_dies_between_two_of_its_runs_starts_each_once(new_account: Callable[[], Resources]) -> None:
    def resumed_with_three(batches: Batches) -> list[str]:
        ids = paused_with(batches, 3)
        batches.control.change_routing("f", resume)
        return ids

    beginning = Beginning(resumed_with_three)
    for crash_at in count():
        batches = Batches(new_account())
        ids = beginning.tell(batches)
        batches.crash_at = crash_at
        batches.drain()
        assert events_of_runs(batches) == ids, crash_at
        assert kept(batches) == []
        if batches.crash_at is not None:
            break
    assert crash_at > 8

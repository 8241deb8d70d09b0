"""A process of route or advance may crash before any request to AWS, and any message may be delivered twice."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from stepwell.aws import clients
from stepwell.aws.api.queries import Queries
from stepwell.aws.functions.registry import Registry
from stepwell.aws.resources import Resources
from stepwell.aws.steps.dispatch import SOURCE
from stepwell.aws.table.keys import STATUS_SHARDS
from stepwell.core.events.request import events_accepted_before
from stepwell.core.run.run import RunStatus
from stepwell.testing.account.snapshot import Snapshot
from stepwell.testing.batches import Batches, Crash, Json, handler_step

PAID = {"event": "paid", "match": "async.data.order == event.data.order", "ttl": "1h"}
CANCEL = {"a rule of cancel, whose event comes": [{"event": "paid", "if": PAID["match"], "timeout": "1h"}]}
TIMEOUTS = {"timeouts that do not pass": {"start": "1h", "finish": "1h"}}
IDEMPOTENCY = {"a value of idempotency": "event.data.order", "a rate limit with idempotency": "event.data.order"}
RATE_LIMITS = {"a rate limit with idempotency": {"limit": 1, "period": "1h"}}
STORIES: dict[str, tuple[Json, list[tuple[str, Json]]]] = {
    "steps one after the other": ({"a": handler_step(), "b": handler_step("a"), "c": handler_step("b")}, [("go", {})]),
    "parallel steps that join": (
        {"a": handler_step(), "b": handler_step(), "c": handler_step("a", "b", join="all")},
        [("go", {})],
    ),
    "a wait, whose event comes": (
        {"a": handler_step(), "b": handler_step({"step": "a", "async": PAID})},
        [("go", {"order": 7}), ("paid", {"order": 7})],
    ),
    "a rule of cancel, whose event comes": (
        {"a": handler_step(), "b": handler_step({"step": "a", "wait": "10m"})},
        [("go", {"order": 7}), ("paid", {"order": 7})],
    ),
    "a value of idempotency": (
        {"a": handler_step(), "b": handler_step("a")},
        [("go", {"order": 7}), ("go", {"order": 7})],
    ),
    "an event that a step sends, for which another step waits": (
        {
            "tell": {"runtime": {"type": "emit", "event": "packed", "data": "{'order': data.order}"}},
            "c": handler_step("tell"),
            "b": handler_step({"step": "$trigger", "async": {**PAID, "event": "packed"}}),
        },
        [("go", {"order": 7})],
    ),
    "timeouts that do not pass": ({"a": handler_step(), "b": handler_step("a")}, [("go", {})]),
    "a rate limit with idempotency": (
        {"a": handler_step(), "b": handler_step("a")},
        [("go", {"order": 7}), ("go", {"order": 8})],
    ),
    "a long output": ({"a": handler_step(), "long": handler_step("a"), "c": handler_step("long")}, [("go", {})]),
}


def answer(ctx: Json) -> Any:
    return {"text": "x" * 5000} if ctx["step_id"] == "long" else {"ok": ctx["step_id"]}


def connect_bus(resources: Resources) -> None:
    """Lets the bus deliver the events of steps, as the stack does."""
    bus, pattern = clients.client("events"), {"source": [{"anything-but": SOURCE}]}
    bus.put_rule(Name="ToEvents", EventBusName=resources.bus, EventPattern=json.dumps(pattern))
    target = {"Id": "queue", "Arn": resources.events_queue_arn}
    bus.put_targets(Rule="ToEvents", EventBusName=resources.bus, Targets=[target])


def tell(batches: Batches, story: str, deployed: list[Snapshot], crash_at: int | None = None) -> None:
    """Runs a story with a crash before the request of this number.

    `deployed`: a copy of the account after the deployment, with which all variants but the first begin.
    """
    steps, events = STORIES[story]
    if deployed:
        deployed[0].restore()
    else:
        fields = {"cancel": CANCEL, "idempotency": IDEMPOTENCY, "timeouts": TIMEOUTS, "rate_limit": RATE_LIMITS}
        batches.deploy(steps, **{name: by_story.get(story) for name, by_story in fields.items()})
        connect_bus(batches.resources)
        deployed.append(Snapshot())
    batches.requests.clear()
    batches.crash_at = crash_at
    for number, (name, data) in enumerate(events):
        batches.send(name, data, id=f"{number:032x}")  # the same in each variant, so that the ids of runs are the same
        batches.drain()


def result(batches: Batches) -> list[Any]:
    """The details of all runs."""
    return [
        (
            stored.run.status,
            [step.status.name for step in stored.run.steps],
            sorted((attempt.step, attempt.status, attempt.output or b"") for attempt in attempts),
        )
        for stored, attempts in batches.runs()
    ]


@pytest.mark.parametrize("story", STORIES)
def test_a_crash_before_any_request_changes_nothing_in_the_end(
    resources: Resources, story: str, new_account: Callable[[], Resources]
) -> None:
    whole, deployed = Batches(resources, answer), list[Snapshot]()
    tell(whole, story, deployed)
    expected = result(whole)
    assert [status for status, *_ in expected] == [RunStatus.CANCELLED if story in CANCEL else RunStatus.COMPLETED]
    assert_nothing_is_left(whole)
    for number in count():
        batches = Batches(new_account(), answer)
        tell(batches, story, deployed, number)
        if batches.crash_at is not None:  # there are no more requests
            break
        assert result(batches) == expected, f"after a crash before request {number} of {batches.requests}"
    assert number >= 12


@pytest.mark.parametrize("story", STORIES)
def test_a_batch_that_was_done_may_come_again(
    resources: Resources, story: str, new_account: Callable[[], Resources]
) -> None:
    whole, deployed = Batches(resources, answer), list[Snapshot]()
    tell(whole, story, deployed)
    expected = result(whole)
    for number in range(whole.batches):
        batches = Batches(new_account(), answer)
        batches.crash_after = number
        tell(batches, story, deployed)
        assert result(batches) == expected, f"after batch {number} came twice"


def assert_nothing_is_left(batches: Batches) -> None:
    """Ended runs leave no waits and timers. After a crash one may remain, which has no effect and expires."""
    items = clients.client("dynamodb").scan(TableName=batches.resources.table)["Items"]
    kinds = Counter(item["pk"]["S"].partition("#")[0] for item in items)
    assert (kinds["W"], kinds["T"]) == (0, 0)


def test_every_message_may_come_twice(resources: Resources) -> None:
    batches = Batches(resources, answer)
    steps, _ = STORIES["parallel steps that join"]
    batches.deploy(steps)
    batches.send(id="once")
    batches.send(id="once")
    while batches.route():
        pass
    assert len(batches.invoked) == 2
    for payload in list(batches.invoked):
        outcome = {"requestContext": {"requestId": "r", "condition": "Success"}, "requestPayload": payload}
        batches.put_outcome({**outcome, "responsePayload": {"second": True}})
    batches.drain()
    assert Counter(payload["ctx"]["step_id"] for payload in batches.invoked) == {"a": 1, "b": 1, "c": 1}
    ((status, _, attempts),) = result(batches)
    assert status is RunStatus.COMPLETED
    assert [output for *_, output in attempts] == [b'{"ok":"a"}', b'{"ok":"b"}', b'{"ok":"c"}']


def test_of_two_events_with_one_value_that_race_one_starts_a_run(resources: Resources) -> None:
    """The first Lambda crashes between the claim and the run; the second finds the claim; then the first is delivered
    again.
    """
    batches = Batches(resources, answer)
    batches.deploy({"a": handler_step()}, idempotency="event.data.order")
    batches.send(data={"order": 0}, id="warm")
    batches.drain()
    batches.send(data={"order": 7}, id="first")
    batches.requests.clear()
    batches.crash_at = 2  # the event and the claim are written
    assert batches.route()
    assert batches.requests == 3 * ["PutItem"]
    batches.send(data={"order": 7}, id="second")
    batches.drain()
    runs = {run.event_id: run.run.status for run, _ in batches.runs()}
    assert runs == {"warm": RunStatus.COMPLETED, "first": RunStatus.COMPLETED}


def test_a_replay_that_crashed_is_asked_for_again_and_starts_each_event_once(
    resources: Resources, new_account: Callable[[], Resources]
) -> None:
    abroad = {"name": "abroad", "id": "abroad", "data": {}}
    for number in count():
        account = new_account()
        batches = Batches(account, answer)
        batches.deploy({"a": handler_step()})
        sent = [batches.send(id=f"e{n}") for n in range(3)]
        batches.drain()
        batches.requests.clear()
        batches.crash_at = number
        try:
            batches.control.replay("f", 1, [*sent, *events_accepted_before([abroad], 1)], "r1")
        except Crash:
            batches.start()
        if batches.crash_at is not None:  # there are no more requests
            break
        done = batches.control.replay("f", 1, [*sent, *events_accepted_before([abroad], 1)], "r1") or []
        batches.drain()
        batches.scheduler.sweep(range(STATUS_SHARDS), silence_ms=0)
        batches.drain()
        queries, place = (
            Queries(account, Registry(account)),
            f"after a crash before {batches.requests[number]} ({number})",
        )
        ids = [item.run_id for item in done]
        replayed = [run for run, _ in batches.runs() if run.replay == "r1"]
        assert sorted(run.run.id for run in replayed) == sorted(ids), place
        assert {run.run.status for run in replayed} == {RunStatus.COMPLETED}, place
        assert {run.run.id for run in queries.read_runs(replay="r1").items} == set(ids), place
        assert [event.replay for event in queries.read_events(name="abroad").items] == ["r1"], place
        for item in done:
            assert item.run_id in {run.run.id for run in queries.read_runs(event=item.event_id).items}, place
    assert number >= 8

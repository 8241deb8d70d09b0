"""`singleton` in DynamoDB: two Lambdas at once, and crashes before every request."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from itertools import count
from typing import Any

import orjson
import pytest

from stepwell.aws import clients
from stepwell.aws.resources import Resources
from stepwell.core.events.events import run_id
from stepwell.core.run.run import RunStatus
from stepwell.testing.account.snapshot import Snapshot
from stepwell.testing.batches import Batches, Crash, Json, Process, handler_step, sqs_event

STEPS = {"a": handler_step(), "b": handler_step({"step": "a", "wait": "10m"})}
RUNNING, CANCELLED = RunStatus.RUNNING, RunStatus.CANCELLED
FIRST, SECOND = f"{1:032x}", f"{2:032x}"


def deploy(batches: Batches, mode: str, **fields: Any) -> None:
    batches.deploy(STEPS, singleton={"mode": mode, "key": "event.data.account"}, **fields)


def send(batches: Batches, event: str) -> None:
    batches.send(data={"account": 7}, id=event)


def states(batches: Batches) -> dict[str, tuple[RunStatus, str | None]]:
    """The status of the run of each event, and the run that took its place."""
    return {run.event_id: (run.run.status, run.run.replaced_by) for run, _ in batches.runs()}


def reasons(batches: Batches, event: str) -> list[Json]:
    key = {"pk": {"S": f"E#{event}"}, "sk": {"S": "e"}}
    item = batches.outside_db.get_item(TableName=batches.resources.table, Key=key)["Item"]
    found: list[Json] = orjson.loads(item.get("ms", {"B": b"[]"})["B"])
    return found


def envelope(event: str) -> Json:
    detail = {"name": "go", "data": {"account": 7}, "id": event, "user": {}}
    fields = {"version": "0", "id": f"bridge-{event}", "detail-type": "go", "source": "stepwell.api"}
    return {**fields, "time": "2026-06-01T10:00:30Z", "detail": detail}


def before_first(prefix: str, do: Callable[[], None]) -> None:
    """Calls `do` before the next write of an item with this prefix, as if another Lambda came in between."""
    is_done: list[bool] = []

    def intervene(params: Json, **_: Any) -> None:
        if not is_done and f'"pk": {{"S": "{prefix}' in str(params["body"].decode()):
            is_done.append(True)
            do()

    clients.client("dynamodb").meta.events.register("before-call.dynamodb.PutItem", intervene)


# --- crashes ---------------------------------------------------------------------------------------------------------


def test_whenever_a_lambda_crashes_the_second_event_cancels_the_first_run(new_account: Callable[[], Resources]) -> None:
    begun: list[Snapshot] = []
    for number in count():
        batches = Batches(new_account())
        if begun:
            begun[0].restore()
        else:
            deploy(batches, "cancel")
            send(batches, FIRST)
            batches.drain()
            begun.append(Snapshot())
        batches.requests.clear()
        batches.crash_at = number
        send(batches, SECOND)
        batches.drain()
        if batches.crash_at is not None:  # there are no more requests
            break
        place = f"after a crash before request {number}, {batches.requests[number]}"
        assert states(batches) == {FIRST: (CANCELLED, run_id("f", SECOND)), SECOND: (RUNNING, None)}, place
    assert number >= 8


@pytest.mark.parametrize("mode", ["skip", "cancel"])
def test_whenever_a_lambda_crashes_two_events_that_come_together_open_one_run(
    new_account: Callable[[], Resources], mode: str
) -> None:
    begun: list[Snapshot] = []
    for number in count():
        batches = Batches(new_account())
        if begun:
            begun[0].restore()
        else:
            deploy(batches, mode)
            begun.append(Snapshot())
        batches.requests.clear()
        batches.crash_at = number
        send(batches, FIRST)
        batches.route(1)
        send(batches, SECOND)
        batches.drain()
        if batches.crash_at is not None:
            break
        place = f"after a crash before request {number}, {batches.requests[number]}"
        found = states(batches)
        is_open = [event for event, (status, _) in found.items() if status is RUNNING]
        assert len(is_open) == 1, place
        for event in {FIRST, SECOND} - set(is_open):
            if event in found:
                assert (mode, found[event]) == ("cancel", (CANCELLED, run_id("f", SECOND))), place
            else:
                assert [row["run_id"] for row in reasons(batches, event)] == [run_id("f", is_open[0])], place
    assert number >= 8


@pytest.mark.parametrize("mode", ["skip", "cancel"])
@pytest.mark.parametrize("seed", range(2))
def test_whatever_crashes_at_most_one_run_of_a_key_is_open(
    new_account: Callable[[], Resources], clock: Any, mode: str, seed: int
) -> None:
    """Random events with random pauses and crashes. Each event has started a run, or has a reason why not."""
    chance = random.Random(seed)
    batches = Batches(new_account())
    deploy(batches, mode, rate_limit={"limit": 4, "period": "5m"})
    sent: list[str] = []
    for _ in range(30):
        for _ in range(chance.choice((1, 1, 2, 3))):
            sent.append(batches.send(data={"account": chance.randrange(2)}, id=f"{len(sent):032x}"))
        batches.crash_at = len(batches.requests) + chance.randrange(40) if chance.random() < 0.7 else None
        batches.drain()
        batches.crash_at = None
        clock.shift(timedelta(seconds=chance.choice((1, 20, 200))))
        batches.drain()
        open_keys = [run.event_id for run, _ in batches.runs() if run.run.status is RUNNING]
        assert len(open_keys) <= 2
    clock.shift(timedelta(minutes=20))
    for _ in range(3):
        batches.drain()
        clock.shift(timedelta(seconds=1))
    found = states(batches)
    assert {event for event in sent if event not in found and not reasons(batches, event)} == set()
    assert {event for event in found if reasons(batches, event)} == set()
    assert len(found) > 5


# --- two Lambdas at once ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["skip", "cancel"])
def test_of_two_lambdas_that_claim_a_key_at_once_one_starts_a_run(resources: Resources, clock: Any, mode: str) -> None:
    batches = Batches(resources)
    deploy(batches, mode)
    other = Process(batches.resources)
    before_first("G#", lambda: answers.append(other.consumer.route(sqs_event([envelope(SECOND)]))))
    answers: list[Json] = []
    send(batches, FIRST)
    assert batches.route()
    assert answers == [{"batchItemFailures": []}]
    assert states(batches) == {SECOND: (RUNNING, None)}
    (row,) = reasons(batches, FIRST)
    assert row["run_id"] == run_id("f", SECOND)
    assert ("of a later event" in row["problem"]) == (mode == "cancel")


@pytest.mark.parametrize("mode", ["skip", "cancel"])
def test_a_run_that_is_claimed_and_not_written_yet_is_waited_for(resources: Resources, clock: Any, mode: str) -> None:
    batches = Batches(resources)
    deploy(batches, mode)
    other = Process(batches.resources)
    before_first("R#", lambda: answers.append(other.consumer.route(sqs_event([envelope(SECOND)]))))
    answers: list[Json] = []
    send(batches, FIRST)
    assert batches.route()
    assert [len(answer["batchItemFailures"]) for answer in answers] == [1], "its message is delivered again"
    assert states(batches) == {FIRST: (RUNNING, None)}
    assert other.consumer.route(sqs_event([envelope(SECOND)], 2)) == {"batchItemFailures": []}
    if mode == "skip":
        assert states(batches) == {FIRST: (RUNNING, None)}
        assert [row["run_id"] for row in reasons(batches, SECOND)] == [run_id("f", FIRST)]
    else:
        assert states(batches) == {FIRST: (CANCELLED, run_id("f", SECOND)), SECOND: (RUNNING, None)}


def test_a_key_whose_run_was_never_written_is_taken_over_when_its_lambda_must_be_gone(
    resources: Resources, clock: Any
) -> None:
    batches = Batches(resources)
    deploy(batches, "skip")
    first = sqs_event([envelope(FIRST)])
    batches.requests.clear()
    batches.numbered, batches.crash_at = ("PutItem",), 2  # the event and the claim are written
    with pytest.raises(Crash):
        batches.consumer.route(first)
    batches.start()
    assert len(batches.consumer.route(sqs_event([envelope(SECOND)]))["batchItemFailures"]) == 1
    clock.shift(timedelta(seconds=89))
    assert len(batches.consumer.route(sqs_event([envelope(SECOND)], 2))["batchItemFailures"]) == 1
    clock.shift(timedelta(seconds=2))
    assert batches.consumer.route(sqs_event([envelope(SECOND)], 3)) == {"batchItemFailures": []}
    assert batches.consumer.route(sqs_event([envelope(FIRST)], 2)) == {"batchItemFailures": []}
    assert states(batches) == {SECOND: (RUNNING, None)}
    assert [row["run_id"] for row in reasons(batches, FIRST)] == [run_id("f", SECOND)]

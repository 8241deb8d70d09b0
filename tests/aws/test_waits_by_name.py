"""Waits without a key, found by the event's name: many a second, because they are spread over several partitions."""

from __future__ import annotations

from collections import Counter

from stepwell.aws.resources import Resources
from stepwell.aws.table.keys import FUNCTIONS_STATE, WAIT_SHARDS, wait_partitions
from stepwell.core.run.run import RunStatus
from stepwell.testing.account.meter import metered
from stepwell.testing.batches import Batches, Json, handler_step

BY_NAME = {"event": "paid", "match": "async.data.amount > event.data.amount", "ttl": "1d"}
STEPS = {"a": handler_step({"step": "$trigger", "async": BY_NAME})}


def rows(batches: Batches) -> Counter[str]:
    """The number of waits in each partition."""
    partitions = wait_partitions("paid", None)
    found = {partition: _rows_of(batches, partition) for partition in partitions}
    return Counter({name: count for name, count in found.items() if count})


def _rows_of(batches: Batches, partition: str) -> int:
    count: int = batches.outside_db.query(
        TableName=batches.resources.table,
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues={":pk": {"S": partition}},
    )["Count"]
    return count


def statuses(batches: Batches) -> list[RunStatus]:
    return [stored.run.status for stored, _ in batches.runs()]


def waiting(resources: Resources, count: int, steps: Json = STEPS) -> Batches:
    batches = Batches(resources)
    batches.deploy(steps)
    for number in range(count):
        batches.send("go", {"amount": 1}, id=f"waits-{number}")  # the ids of runs, and so the shards, follow from these
    batches.drain()
    return batches


def test_waits_by_name_are_divided_and_one_event_wakes_all(resources: Resources) -> None:
    batches = waiting(resources, 40)
    assert sum(rows(batches).values()) == 40
    assert len(rows(batches)) == WAIT_SHARDS
    assert max(rows(batches).values()) < 15
    batches.send("paid", {"amount": 2})
    batches.drain()
    assert statuses(batches) == [RunStatus.COMPLETED] * 40
    assert rows(batches) == Counter()


def test_an_event_asks_each_partition_once_and_only_where_its_name_is_awaited_so(resources: Resources) -> None:
    batches = waiting(resources, 1)
    with metered() as meter:
        batches.send("paid", {"amount": 0})
        batches.route()
    assert meter.operations()["dynamodb.Query"] == WAIT_SHARDS
    with metered() as meter:
        batches.send("other")
        batches.route()
    assert meter.operations()["dynamodb.Query"] == 0


def test_what_waited_before_an_environment_was_updated_is_woken_after_the_first_push(resources: Resources) -> None:
    """Until then new waits are stored in the partition that earlier versions of Stepwell read."""
    batches = waiting(resources, 0)
    batches.outside_db.update_item(TableName=resources.table, Key=FUNCTIONS_STATE, UpdateExpression="REMOVE ws")
    batches.start()
    for _ in range(3):
        batches.send("go", {"amount": 1})
    batches.drain()
    assert rows(batches) == Counter({"W#n#paid": 3})
    batches.deploy({**STEPS, "b": handler_step()})
    for _ in range(3):
        batches.send("go", {"amount": 1})
    batches.drain()
    assert rows(batches)["W#n#paid"] < 6
    batches.send("paid", {"amount": 2})
    batches.drain()
    assert statuses(batches) == [RunStatus.COMPLETED] * 6

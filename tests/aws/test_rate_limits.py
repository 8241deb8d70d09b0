"""Rate limits in DynamoDB: two Lambdas at once, crashes, and what stays in the table."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import orjson
import pytest

from stepwell.aws import clients
from stepwell.aws.resources import Resources
from stepwell.aws.table.keys import rate_limit_partition
from stepwell.aws.table.rate_limits import DynamoRateLimits
from stepwell.core.plan import RateLimit
from stepwell.platform import NotWritten
from stepwell.testing.batches import Batches, Json, handler_step

NOW = 1_780_000_000_000
HOUR = 3_600_000


def items(resources: Resources, function: str = "f", key: bytes = b"k") -> list[Json]:
    found = clients.client("dynamodb").scan(TableName=resources.table)["Items"]
    return [item for item in found if item["pk"]["S"] == rate_limit_partition(function, key)]


def claim(limits: DynamoRateLimits, run: str, limit: int, at: int = 0) -> int | None:
    return limits.claim("f", b"k", RateLimit(limit, HOUR), run, NOW + at, again=False)


def before_writes(do: Callable[[], None], times: int) -> None:
    """Calls `do` before each of the next writes of starts, as if another Lambda came in between."""
    left = [times]

    def intervene(params: Json, **_: Any) -> None:
        if left[0] and '"N#' in str(params["body"]):
            left[0] -= 1
            do()

    clients.client("dynamodb").meta.events.register("before-call.dynamodb.PutItem", intervene)


def test_of_two_lambdas_that_start_the_last_run_at_once_one_does(resources: Resources) -> None:
    one, other = DynamoRateLimits(resources.table), DynamoRateLimits(resources.table)
    assert claim(one, "r1", 2) is None
    before_writes(lambda: answers.append(claim(other, "r3", 2)), 1)
    answers: list[int | None] = []
    assert claim(one, "r2", 2) == NOW + HOUR
    assert answers == [None]


def test_lambdas_that_start_many_runs_at_once_count_each(resources: Resources) -> None:
    one, other = DynamoRateLimits(resources.table), DynamoRateLimits(resources.table)
    numbers = iter(range(1000))
    for number in range(60):
        before_writes(lambda: claim(other, f"other-{next(numbers)}", 1000) and None, 1)
        assert claim(one, f"r{number}", 1000) is None
    counted = sum(claim(one, f"more-{n}", 125) is None for n in range(20))
    assert counted == 5


def test_a_key_that_others_change_all_the_time_is_tried_again_later(resources: Resources) -> None:
    one, other = DynamoRateLimits(resources.table), DynamoRateLimits(resources.table)
    numbers, nested = iter(range(1000)), [False]

    def intervene() -> None:
        if not nested[0]:
            nested[0] = True
            claim(other, f"other-{next(numbers)}", 1000)
            nested[0] = False

    before_writes(intervene, 1000)
    with pytest.raises(NotWritten, match="20 times in a row"):
        claim(one, "r", 1000)


def test_what_is_stored_of_a_key_depends_on_the_starts_within_the_period(resources: Resources) -> None:
    limits = DynamoRateLimits(resources.table)
    for number in range(200):
        assert claim(limits, f"r{number}", 50, number * HOUR // 10) is None
    assert len(items(resources)) == 1, "no twenty starts were within an hour"
    for number in range(50):
        claim(limits, f"s{number}", 50, 21 * HOUR)
    assert 2 <= len(items(resources)) <= 4
    ttls = [int(item["ttl"]["N"]) for item in items(resources)]
    assert max(ttls) == (NOW + 22 * HOUR) // 1000 + 86_400


def test_a_repeated_claim_of_the_same_run_counts_once(resources: Resources) -> None:
    """SQS may deliver a message twice at the same time."""
    limits = DynamoRateLimits(resources.table)
    assert [claim(limits, run, 2) is None for run in ("r1", "r1", "r1", "r2", "r3", "r2")] == [
        True, True, True, True, False, True,
    ]  # fmt: skip


def test_an_erased_start_counts_for_others_and_leaves_nothing_after_them(resources: Resources) -> None:
    limits = DynamoRateLimits(resources.table)
    for number in range(70):
        assert claim(limits, f"r{number}", 70, number) is None
    for number in range(69):
        limits.forget("f", b"k", f"r{number}", 0)
    assert claim(limits, "late", 70, 100) == NOW + HOUR
    limits.forget("f", b"k", "r69", 0)
    assert items(resources) == []


def test_starts_of_runs_that_are_no_longer_stored_do_not_keep_a_key(resources: Resources) -> None:
    limits = DynamoRateLimits(resources.table)
    claim(limits, "old", 5)
    claim(limits, "r", 5, 100)
    limits.forget("f", b"k", "r", NOW + 50)
    assert items(resources) == []


# --- the whole engine ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_no_window_ever_has_more_starts_than_the_limit_whatever_crashes(
    new_account: Callable[[], Resources], clock: Any, seed: int
) -> None:
    """Random events of three customers, some twice, with random pauses and crashes before random requests."""
    chance = random.Random(seed)
    batches = Batches(new_account())
    rate_limit = {"limit": 3, "period": "10m", "key": "event.data.customer"}
    batches.deploy({"a": handler_step()}, rate_limit=rate_limit, idempotency="event.data.order")
    sent: list[str] = []
    for _ in range(40):
        for _ in range(chance.choice((1, 1, 2, 4))):
            order = chance.randrange(60)
            sent.append(batches.send(data={"customer": order % 3, "order": order}, id=f"{len(sent):032x}"))
            if chance.random() < 0.1:
                batches.send(data={"customer": order % 3, "order": order}, id=sent[-1])
        batches.crash_at = len(batches.requests) + chance.randrange(40) if chance.random() < 0.7 else None
        batches.drain()
        batches.crash_at = None
        clock.shift(timedelta(seconds=chance.choice((0, 1, 30, 200))))
    clock.shift(timedelta(seconds=1))  # after which the message of the last crash is visible
    batches.drain()
    runs = [run for run, _ in batches.runs()]
    customers: dict[int, list[int]] = {0: [], 1: [], 2: []}
    orders = []
    for run in runs:
        event = _event(batches, run.event_id)
        orders.append(event["data"]["order"])
        customers[event["data"]["customer"]].append(run.run.created_at)
    for starts in customers.values():
        for end in starts:
            assert sum(end - 600_000 < start <= end for start in starts) <= 3
    assert len(orders) == len(set(orders)), "each value of `idempotency` once"
    started = {run.event_id for run in runs}
    for event_id in sent:
        misses = orjson.loads(_item(batches, event_id).get("ms", {"B": b"[]"})["B"])
        assert [miss["function_id"] for miss in misses] == ([] if event_id in started else ["f"])
    assert len(runs) > 10


def _item(batches: Batches, event_id: str) -> Json:
    key = {"pk": {"S": f"E#{event_id}"}, "sk": {"S": "e"}}
    item: Json = batches.outside_db.get_item(TableName=batches.resources.table, Key=key)["Item"]
    return item


def _event(batches: Batches, event_id: str) -> Json:
    event: Json = orjson.loads(_item(batches, event_id)["b"]["B"])
    return event

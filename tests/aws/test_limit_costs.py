"""What limits cost on AWS: counted requests and capacity units, in a warm process."""

from __future__ import annotations

from typing import Any

from stepwell.aws.resources import Resources
from stepwell.testing.account.meter import Meter
from stepwell.testing.batches import LOST, Batches, destination, handler_step
from tests.aws.test_access_patterns import cost, of_event, of_outcome, warm

STEPS = {"a": handler_step()}


def deployed(resources: Resources, on: str, **fields: Any) -> Batches:
    batches = Batches(resources)
    batches.deploy(STEPS, on=on, id=f"when-{on}", **fields)
    warm(batches, on)
    return batches


def more(less: Meter, meter: Meter) -> tuple[dict[str, int], float, float]:
    """The requests, write units and read units that the second one has more."""
    (before, writes, reads), (after, more_writes, more_reads) = cost(less), cost(meter)
    found = {name: after.get(name, 0) - before.get(name, 0) for name in before | after}
    return {name: count for name, count in found.items() if count}, more_writes - writes, more_reads - reads


def test_an_attempt_costs_its_permit_and_a_second_write_of_the_run(resources: Resources) -> None:
    plain = deployed(resources, "go")
    events, outcomes = of_event(plain, "go"), of_outcome(plain)
    limited = deployed(resources, "come", concurrency={"limit": 5})
    event, outcome = of_event(limited, "come"), of_outcome(limited)
    assert more(events, event) == ({"dynamodb.PutItem": 1, "dynamodb.UpdateItem": 1}, 2, 0)
    assert more(outcomes, outcome) == ({"dynamodb.UpdateItem": 1, "dynamodb.Query": 1}, 1, 1)


def test_the_start_of_a_run_under_a_throttle_costs_one_write_more(resources: Resources) -> None:
    plain = deployed(resources, "go")
    events = of_event(plain, "go")
    throttled = deployed(resources, "come", throttle={"limit": 1000, "period": "1m", "burst": 100})
    requests = {"dynamodb.GetItem": 1, "dynamodb.UpdateItem": 1, "dynamodb.PutItem": 1}
    assert more(events, of_event(throttled, "come")) == (requests, 2, 1)


def test_an_attempt_that_waits_costs_its_place_in_the_queue(resources: Resources) -> None:
    limited = deployed(resources, "come", concurrency={"limit": 1})
    limited.answer = lambda ctx: LOST
    at_once = of_event(limited, "come")
    of_event(limited, "come")  # the first one that waits notes that others must not overtake it
    waits = of_event(limited, "come")
    assert more(at_once, waits) == ({"dynamodb.Query": 1, "lambda.Invoke": -1}, 0, 1)


def test_the_end_of_an_attempt_starts_the_next_one_that_waits(resources: Resources) -> None:
    limited = deployed(resources, "come", concurrency={"limit": 1})
    alone = of_outcome(started(limited))
    limited.answer = lambda ctx: LOST
    limited.send("come")
    limited.route()
    (first,) = limited.invoked[-1:]
    for _ in range(3):
        of_event(limited, "come")
    limited.put_outcome(destination(first, {}))
    start = {"dynamodb.BatchGetItem": 1, "dynamodb.UpdateItem": 1, "dynamodb.PutItem": 1, "dynamodb.BatchWriteItem": 1}
    assert more(alone, of_outcome(limited)) == ({**start, "lambda.Invoke": 1}, 3, 1)


def started(batches: Batches) -> Batches:
    batches.send("come")
    batches.route()
    return batches

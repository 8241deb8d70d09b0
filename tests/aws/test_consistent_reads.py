"""Reads before decisions are strongly consistent; otherwise a wait and an event could miss each other.

The emulator is always consistent, so the tests check the parameters of the requests. Reads are eventually consistent
by default: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.ReadConsistency.html
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from stepwell.aws import clients
from stepwell.testing.batches import Batches, Json, handler_step

READS = ("GetItem", "Query", "BatchGetItem")
PAID = {"event": "paid", "match": "async.data.order == event.data.order", "ttl": "5m"}


@contextmanager
def reads() -> Iterator[list[tuple[str, bool]]]:
    """The reads of the table in the meantime: the keys, and whether the read is strongly consistent."""
    found: list[tuple[str, bool]] = []

    def note(params: Json, model: Any, **_: Any) -> None:
        if model.name not in READS:
            return
        for part in params.get("RequestItems", {"": params}).values():
            found.append((f"{model.name} {part.get('IndexName', '')}".strip(), part.get("ConsistentRead", False)))

    events = clients.client("dynamodb").meta.events
    events.register("provide-client-params.dynamodb", note, unique_id="reads")
    try:
        yield found
    finally:
        events.unregister("provide-client-params.dynamodb", unique_id="reads")


def test_whatever_an_event_an_outcome_or_a_timer_brings_about_reads_what_was_written_last(
    batches: Batches, clock: Any
) -> None:
    parallel = {f"s{number}": handler_step("a") for number in range(40)}
    late = {"step": "$trigger", "async": {**PAID, "onTimeout": True}}
    batches.deploy({"a": handler_step({"step": "$trigger", "async": PAID}), **parallel})
    batches.deploy({"a": handler_step(late)}, id="g")
    batches.deploy({"z": handler_step()}, on="stepwell/run.completed", id="h", idempotency="event.id")
    with reads() as found:
        for order in (1, 2):
            batches.send("go", {"order": order})
        batches.drain()
        batches.send("paid", {"order": 1})
        batches.drain()
        clock.shift(timedelta(minutes=6))
        batches.drain()
    assert {what for what, _ in found} >= {"Query", "GetItem", "BatchGetItem"}
    assert {what for what, consistent in found if not consistent} == set()

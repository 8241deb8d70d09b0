"""A wait whose `match` gives no key scans all events of the name; many of them take several invocations."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import orjson
import pytest

from stepwell.aws.queues.messages import scan_message
from stepwell.aws.resources import Resources
from stepwell.core.run.run import StepStatus
from stepwell.testing.batches import Batches, Json, handler_step
from stepwell.testing.platform import START
from tests.aws.beginnings import Beginning

AT_ONCE = 10


@pytest.fixture(autouse=True)
def looks_at_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepwell.aws.engine.batch.DynamoBatch.most_events", AT_ONCE)


def deploy(batches: Batches, **edge: Any) -> None:
    wanted = {"event": "paid", "match": "async.data.sum > 20", "ttl": "1h"}
    late = {"event": "paid", "match": "async.data.sum > 20", "ttl": "1h", "onTimeout": True}
    steps = {"a": handler_step(), "b": handler_step({"step": "a", "async": wanted, **edge})}
    batches.deploy({**steps, "late": handler_step({"step": "a", "async": late, **edge})})


def pay(batches: Batches, *sums: int) -> None:
    for number in sums:
        batches.send("paid", {"sum": number})
    while batches.route():
        pass


def ran(batches: Batches) -> list[str]:
    ((stored, _),) = [run for run in batches.runs() if run[0].run.steps]
    steps = zip(("a", "b", "late"), stored.run.steps, strict=True)
    return [name for name, step_state in steps if step_state.status is StepStatus.COMPLETED]


def test_a_wait_that_nothing_satisfies_ends_after_as_many_looks_as_it_takes(batches: Batches, clock: Any) -> None:
    deploy(batches)
    batches.send()
    batches.drain()
    pay(batches, *range(-15, 20))
    clock.shift(timedelta(hours=1, seconds=10))
    batches.scheduler.tick()
    before = batches.batches
    batches.drain()
    assert batches.batches - before == 5  # the deadline, three more for the events after ten, the end of the last step
    assert ran(batches) == ["a", "late"]


@pytest.mark.parametrize("place", [0, 9, 10, 34])
def test_an_event_that_came_before_the_wait_is_found_however_many_came_before_it(
    batches: Batches, clock: Any, place: int
) -> None:
    deploy(batches, wait="10m")
    batches.send()
    batches.drain()
    pay(batches, *(21 if number == place else 1 for number in range(35)))
    clock.shift(timedelta(minutes=10))
    batches.drain()
    assert ran(batches) == ["a", "b"]


def paid_during_the_delay(batches: Batches) -> None:
    """The event for which a run waits comes after twelve others."""
    deploy(batches, wait="10m")
    batches.send()
    batches.drain()
    pay(batches, *range(5, 17), 21)


def waits_behind(batches: Batches, beginning: Beginning[None], clock: Any, crash_at: int | None) -> list[str]:
    """The requests that finding an event after twelve others takes."""
    beginning.tell(batches)
    clock.shift(timedelta(minutes=10))
    batches.crash_at = crash_at
    batches.drain()
    clock.shift(1)  # a redelivered message is visible a moment later
    batches.drain()
    return batches.requests


def test_who_looks_may_die_before_any_write(new_account: Callable[[], Resources], clock: Any) -> None:
    beginning = Beginning(paid_during_the_delay)
    requests = list(waits_behind(Batches(new_account()), beginning, clock, None))
    writes = [number for number, name in enumerate(requests) if name != "Query"]
    assert len(writes) > 10
    for crash_at in writes:
        clock.move_to(START)
        batches = Batches(new_account())
        waits_behind(batches, beginning, clock, crash_at)
        assert ran(batches) == ["a", "b"], f"after a crash before request {crash_at} of {requests}"


def test_nobody_else_can_have_events_passed_over(batches: Batches, clock: Any) -> None:
    deploy(batches, wait="10m")
    batches.send()
    batches.drain()
    pay(batches, 21)
    run_id = batches.invoked[0]["ctx"]["run_id"]
    clock.shift(timedelta(hours=2))
    forged: Json = orjson.loads(scan_message(run_id, 0, 2**62, "0" * 32))
    batches.put_outcome(forged)
    batches.drain()
    assert ran(batches) == ["a", "b"]

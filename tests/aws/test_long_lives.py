"""Runs may last for a year: the items that they need outlive the retention of ended runs."""

from __future__ import annotations

from typing import Any

from stepwell.aws.api.approvals import AwsApprovals
from stepwell.aws.api.queries import Queries
from stepwell.aws.engine.session import now_ms
from stepwell.aws.table.keys import event_key
from stepwell.core.run.approvals import decided as decided_as
from stepwell.core.run.run import RunStatus, StepStatus
from stepwell.testing.batches import Batches, handler_step

PAID = {"event": "paid", "match": "async.data.order == event.data.order", "ttl": "2d"}
LONG = {"text": "x" * 5000}


def expire(batches: Batches) -> int:
    """Deletes expired items, as DynamoDB does. Returns the number of items."""
    db, table = batches.outside_db, batches.resources.table
    old = [
        {"pk": item["pk"], "sk": item["sk"]}
        for page in db.get_paginator("scan").paginate(TableName=table)
        for item in page["Items"]
        if "ttl" in item and int(item["ttl"]["N"]) * 1000 <= now_ms()
    ]
    for key in old:
        db.delete_item(TableName=table, Key=key)
    return len(old)


def test_a_wait_is_stored_for_exactly_a_day_after_its_deadline(batches: Batches) -> None:
    batches.deploy({"a": handler_step({"step": "$trigger", "async": PAID})})
    batches.send(data={"order": 1})
    batches.drain()
    scanned = batches.outside_db.scan(TableName=batches.resources.table)["Items"]
    (wait,) = (item for item in scanned if "d" in item and item["pk"]["S"].startswith("W#"))
    assert int(wait["ttl"]["N"]) == int(wait["d"]["N"]) // 1000 + 86_400


def go_on(batches: Batches, clock: Any, days: int) -> None:
    clock.shift(days * 86_400 + 130)
    expire(batches)
    batches.start()
    batches.scheduler.sweep(range(8))
    batches.drain()


def test_an_event_and_a_long_output_are_there_after_a_delay_of_40_days(batches: Batches, clock: Any) -> None:
    batches.answer = lambda ctx: LONG
    batches.deploy({"a": handler_step(), "b": handler_step({"step": "a", "wait": "40d"})})
    batches.send(data={"text": "y" * 500})
    batches.drain()
    go_on(batches, clock, 40)
    ((stored, _),) = batches.runs()
    assert stored.run.status is RunStatus.COMPLETED
    assert batches.invoked[-1]["steps"] == {"a": LONG}
    assert batches.invoked[-1]["event"]["data"] == {"text": "y" * 500}


def test_all_that_an_approval_needs_is_there_after_a_year(batches: Batches, clock: Any) -> None:
    asks = {"runtime": {"type": "approval", "message": "{{ steps.a.text }}"}, "timeout": "366d"}
    batches.answer = lambda ctx: LONG
    decided = {"step": "ask", "if": "response.approved"}
    batches.deploy({"a": handler_step(), "ask": {**asks, "after": [{"step": "a"}]}, "b": handler_step(decided)})
    batches.send(data={"text": "y" * 500})
    batches.drain()
    go_on(batches, clock, 365)
    ((stored, _),) = batches.runs()
    approvals = AwsApprovals(
        batches.resources, Queries(batches.resources, batches.session.registry), batches.control.decide
    )
    (detail,) = approvals.read_asking(before=None, limit=50).items
    assert detail.asked[1].startswith("xxx")
    approve, _ = approvals.links().of(detail.plan, detail.run, 1)
    link = approvals.links().read(approve.rpartition("/")[2])
    assert link is not None
    assert approvals.decide(link, decided_as("approved", None, None, now_ms()))
    assert not approvals.decide(link, decided_as("approved", None, None, now_ms()))
    batches.drain()
    ((stored, _),) = batches.runs()
    assert stored.run.status is RunStatus.COMPLETED
    assert len(batches.invoked[-1]["event"]["data"]["text"]) == 500
    assert batches.invoked[-1]["steps"]["a"] == LONG
    assert approvals.read_asking(before=None, limit=50).items == []


def test_an_event_that_came_during_a_delay_of_40_days_is_found_at_its_end(batches: Batches, clock: Any) -> None:
    batches.deploy({"a": handler_step(), "b": handler_step({"step": "a", "wait": "40d", "async": PAID})})
    batches.send(data={"order": 1})
    batches.drain()
    clock.shift(86_400)
    batches.send("paid", {"order": 1})
    batches.drain()
    go_on(batches, clock, 39)
    assert [payload["ctx"]["step_id"] for payload in batches.invoked] == ["a", "b"]


def test_a_retry_that_its_step_put_off_for_a_year_has_its_event(batches: Batches, clock: Any) -> None:
    batches.answer = lambda ctx: {"status": 503, "retry_after": "300d"} if ctx["attempt"] == 1 else {}
    batches.deploy({"a": handler_step(retries={"attempts": 1})})
    batches.send(data={"text": "y" * 500})
    batches.drain()
    go_on(batches, clock, 300)
    ((stored, _),) = batches.runs()
    assert stored.run.status is RunStatus.COMPLETED


def test_what_nothing_needs_goes_with_its_retention(batches: Batches, clock: Any) -> None:
    event_id = batches.send("unknown")
    batches.drain()
    clock.shift(batches.resources.retention_days * 86_400 + 1)
    assert expire(batches) >= 1
    assert batches.session.store.batch(now_ms()).events([event_id]) == {}


def test_a_run_that_cannot_be_read_holds_up_no_other(batches: Batches, clock: Any) -> None:
    waiting = {"a": handler_step(), "b": handler_step({"step": "a", "async": {**PAID, "match": "async.data.n > 0"}})}
    batches.deploy(waiting)
    batches.deploy(waiting, id="g")
    broken = batches.send(data={"text": "y" * 500})
    batches.drain()
    db = batches.outside_db
    db.delete_item(TableName=batches.resources.table, Key=event_key(broken))  # by any process
    batches.send()
    batches.drain()
    batches.start()
    clock.shift(1)
    batches.send("paid", {"n": 1})
    for _ in range(3):
        batches.route()
        batches.advance()
    statuses = sorted(stored.run.steps[1].status.name for stored, _ in batches.runs())
    assert statuses == ["COMPLETED", "COMPLETED", "PENDING", "PENDING"]
    clock.shift(3 * 86_400)
    batches.scheduler.sweep(range(8))  # checks all of them


def test_a_step_whose_input_cannot_be_read_fails_and_is_logged(batches: Batches, clock: Any) -> None:
    batches.answer = lambda ctx: LONG
    batches.deploy({"a": handler_step(), "b": handler_step({"step": "a", "wait": "1d"})})
    batches.send()
    batches.drain()
    db = batches.outside_db
    for item in db.scan(TableName=batches.resources.table)["Items"]:
        if item["sk"]["S"].startswith("a#"):
            db.delete_item(TableName=batches.resources.table, Key={"pk": item["pk"], "sk": item["sk"]})
    go_on(batches, clock, 1)
    ((stored, attempts),) = batches.runs()
    assert stored.run.status is RunStatus.FAILED
    assert stored.run.steps[1].status is StepStatus.FAILED
    assert b"input_lost" in (attempts[-1].error or b"")


def test_a_rerun_of_an_old_event_has_it_to_its_end(batches: Batches, clock: Any) -> None:
    batches.deploy({"a": handler_step(), "b": handler_step({"step": "a", "wait": "20d"})})
    batches.send(data={"text": "y" * 500})
    batches.drain()
    go_on(batches, clock, 20)
    ((stored, _),) = batches.runs()
    clock.shift(20 * 86_400)
    batches.control.rerun(stored.run.id)
    batches.drain()
    go_on(batches, clock, 20)
    statuses = [stored_run.run.status for stored_run, _ in batches.runs() if stored_run.rerun_of is not None]
    assert statuses == [RunStatus.COMPLETED]


def test_a_wait_is_there_until_its_deadline_has_passed(batches: Batches, clock: Any) -> None:
    """DynamoDB may delete an item in the same second as the `ttl`."""
    batches.deploy(
        {"a": handler_step(), "b": handler_step({"step": "a", "async": {**PAID, "match": "async.data.n > 0"}})}
    )
    batches.send()
    batches.drain()
    clock.shift(2 * 86_400 - 1)  # up to the last second of the `ttl`
    expire(batches)
    batches.start()
    batches.send("paid", {"n": 1})
    batches.drain()
    assert [payload["ctx"]["step_id"] for payload in batches.invoked] == ["a", "b"]

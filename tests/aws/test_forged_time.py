"""Every step may send messages to the queue `outcomes`. No such message makes time pass or wakes the wrong wait."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from stepwell.aws.engine.session import now_ms
from stepwell.aws.queues.messages import tick_name
from stepwell.aws.table.keys import wait_partitions
from stepwell.core.events.events import event_from
from stepwell.core.routing.versions import paused
from stepwell.core.run.messages import TimerKind
from stepwell.core.run.run import PauseStatus, RunStatus, StepStatus
from stepwell.testing.batches import LOST, Batches, Json, Process, destination, handler_step, sqs_event

DELAY, DEADLINE, RETRY = TimerKind.DELAY, TimerKind.DEADLINE, TimerKind.RETRY
DECISION, START, FINISH = TimerKind.DECISION, TimerKind.START, TimerKind.FINISH
PAID = {"event": "paid", "ttl": "10m"}


def timer(batches: Batches, kind: TimerKind, index: int = 0, attempt: int = 0) -> Json:
    """A message that claims that a timer of the only run is due."""
    ((stored, _),) = batches.runs()
    return {"stepwell": "timer", "run": stored.run.id, "timer": [int(kind), index, attempt], "due": 1}


def begin(batches: Batches, steps: Json) -> None:
    batches.deploy(steps)
    batches.send()
    batches.drain()


def forge(batches: Batches, *messages: Json) -> None:
    """Delivers all messages in one batch, and processes everything that follows."""
    assert batches.consumer.advance(sqs_event(list(messages))) == {"batchItemFailures": []}
    batches.drain()


# --- timers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", ["10m", "3d"])
def test_a_delay_ends_when_its_time_has_come_whatever_is_said(batches: Batches, clock: Any, wait: str) -> None:
    begin(batches, {"a": handler_step({"step": "$trigger", "wait": wait})})
    for _ in range(3):
        forge(batches, timer(batches, DELAY))
    assert batches.invoked == []
    total = {"10m": 600, "3d": 3 * 86_400}[wait]
    clock.shift(total - 60)
    batches.scheduler.tick()
    batches.drain()
    assert batches.invoked == []
    clock.shift(60)
    batches.drain()
    assert len(batches.invoked) == 1


def test_a_retry_comes_after_its_pause_and_never_while_the_attempt_runs(batches: Batches, clock: Any) -> None:
    backoff = {"attempts": 1, "backoff": {"initial": "10m", "jitter": 0}}
    batches.answer = lambda ctx: LOST
    begin(batches, {"a": handler_step(retries=backoff)})
    failed = destination(batches.invoked[0], {"status": 503})
    for attempt in (0, 1, 2, 99):
        forge(batches, timer(batches, RETRY, 0, attempt))
    forge(batches, timer(batches, RETRY, 0, 1), failed, timer(batches, RETRY, 0, 1), timer(batches, RETRY, 0, 1))
    assert len(batches.invoked) == 1
    clock.shift(599)
    batches.drain()
    assert len(batches.invoked) == 1
    clock.shift(1)
    batches.drain()
    assert [payload["ctx"]["attempt"] for payload in batches.invoked] == [1, 2]


def test_a_deadline_passes_in_its_time_and_not_before_the_wait_is_open(batches: Batches, clock: Any) -> None:
    begin(batches, {"a": handler_step({"step": "$trigger", "wait": "10m", "async": {**PAID, "onTimeout": True}})})
    forge(batches, timer(batches, DEADLINE))
    clock.shift(600)
    forge(batches, timer(batches, DELAY), timer(batches, DEADLINE))  # the first of them is true
    ((stored, _),) = batches.runs()
    assert (stored.run.pauses[0].status, batches.invoked) == (PauseStatus.AWAITING, [])
    forge(batches, timer(batches, DEADLINE))
    assert batches.invoked == []
    clock.shift(602)
    batches.drain()
    assert len(batches.invoked) == 1


def test_an_approval_is_open_until_its_time_has_come_whatever_is_said(batches: Batches, clock: Any) -> None:
    asks = {"runtime": {"type": "approval", "message": "Really?"}, "timeout": "10m", "after": [{"step": "a"}]}
    batches.answer = lambda ctx: LOST
    begin(batches, {"ask": asks, "a": handler_step()})
    for attempt in (0, 1, 2):
        forge(batches, timer(batches, DECISION, 0, attempt))
        forge(batches, timer(batches, DECISION, 1, attempt))  # of a step without an approval
    forge(batches, destination(batches.invoked[0], {}))
    for attempt in (0, 1, 2, 99):
        forge(batches, timer(batches, DECISION, 0, attempt))
    ((stored, _),) = batches.runs()
    assert [step.status for step in stored.run.steps] == [StepStatus.RUNNING, StepStatus.COMPLETED]
    clock.shift(600)
    forge(batches, timer(batches, DECISION, 0, 1))
    ((stored, _),) = batches.runs()
    assert stored.run.steps[0].status is StepStatus.FAILED


def test_nobody_decides_on_a_step_that_asks_nobody_however_long_it_runs(batches: Batches, clock: Any) -> None:
    batches.answer = lambda ctx: LOST
    begin(batches, {"a": handler_step(timeout="10m")})
    clock.shift(601)
    forge(batches, timer(batches, DECISION, 0, 1))
    ((stored, attempts),) = batches.runs()
    assert (stored.run.steps[0].status, attempts) == (StepStatus.RUNNING, [])
    forge(batches, destination(batches.invoked[0], {}))
    ((stored, _),) = batches.runs()
    assert stored.run.status is RunStatus.COMPLETED


def test_a_run_has_the_time_of_its_timeouts_whatever_is_said(batches: Batches, clock: Any) -> None:
    steps = {"a": handler_step({"step": "$trigger", "wait": "10m"}), "b": handler_step({"step": "a", "wait": "3d"})}
    batches.deploy(steps, timeouts={"start": "11m", "finish": "1h"})
    batches.send()
    batches.drain()
    forge(batches, timer(batches, START), timer(batches, FINISH))
    clock.shift(600)
    batches.drain()
    assert len(batches.invoked) == 1
    clock.shift(3599)
    forge(batches, timer(batches, START), timer(batches, FINISH))
    ((stored, _),) = batches.runs()
    assert stored.run.status is RunStatus.RUNNING
    clock.shift(1)
    forge(batches, timer(batches, FINISH))
    ((stored, _),) = batches.runs()
    assert (stored.run.status, stored.run.timed_out) == (RunStatus.CANCELLED, "finish")


@pytest.mark.parametrize("kind", [DELAY, DEADLINE, RETRY, DECISION])
def test_a_timer_of_nothing_fails_or_is_refused_alone(batches: Batches, kind: TimerKind) -> None:
    begin(batches, {"a": handler_step({"step": "$trigger", "wait": "10m"})})
    unknown = {**timer(batches, kind), "run": "a" * 26}
    forge(batches, unknown, timer(batches, kind, -1), timer(batches, kind, -1, 1))
    answer = batches.consumer.advance(sqs_event([timer(batches, kind, 7), unknown]))
    assert len(answer["batchItemFailures"]) == 1
    assert batches.invoked == []


def test_a_timer_that_comes_early_since_a_clock_is_behind_fires_at_its_time(batches: Batches, clock: Any) -> None:
    begin(batches, {"a": handler_step({"step": "$trigger", "wait": "10m"})})
    clock.shift(600)
    message = batches.outside.receive_message(QueueUrl=batches.resources.outcomes_queue)["Messages"][0]
    batches.outside.delete_message(QueueUrl=batches.resources.outcomes_queue, ReceiptHandle=message["ReceiptHandle"])
    clock.shift(-0.2)
    record = {"messageId": "1", "body": message["Body"], "attributes": {"ApproximateReceiveCount": "1"}}
    assert batches.consumer.advance({"Records": [record]}) == {"batchItemFailures": []}
    assert batches.invoked == []
    clock.shift(1)
    batches.drain()
    assert len(batches.invoked) == 1


# --- ticks -----------------------------------------------------------------------------------------------------------

HOURLY = {"stepwell": "tick", "function": "f", "cron": "0 * * * *", "timezone": "UTC"}
HOUR = int(datetime(2026, 6, 1, 10, tzinfo=UTC).timestamp() * 1000)


def tick(at: Any, **fields: Any) -> Json:
    return {**HOURLY, "at": at, "due": at, **fields}


def signed(batches: Batches, fields: Json) -> Json:
    name = tick_name(fields["function"], fields["cron"], fields["timezone"], fields["at"])
    return {**fields, "token": batches.session.tokens.of(*name)}


def deploy_hourly(batches: Batches) -> None:
    batches.deploy({"a": handler_step()}, triggers=[{"cron": "0 * * * *"}])


FORGED_TICKS = {
    "between two ticks": tick(HOUR - 60_000),
    "within a minute": tick(HOUR + 1),
    "the next one, too early": tick(HOUR + 3_600_000),
    "in a thousand years": tick(HOUR + 3_600_000 * 24 * 365 * 1000),
    "long ago": tick(HOUR - 3_600_000 * 24 * 15),
    "of another cron trigger": tick(HOUR, cron="* * * * *"),
    "of another time zone": tick(HOUR, timezone="Asia/Kolkata"),
    "of another function": tick(HOUR, function="g"),
    "the last one": tick(HOUR),
    "yesterday's": tick(HOUR - 3_600_000 * 24),
    "with no text as a token": tick(HOUR, token=[1]),
    "with a token of nothing": tick(HOUR, token="0" * 32),
}


@pytest.mark.parametrize("kind", FORGED_TICKS)
def test_a_tick_without_its_token_starts_nothing(batches: Batches, clock: Any, kind: str) -> None:
    deploy_hourly(batches)
    forge(batches, FORGED_TICKS[kind])
    for _ in range(4):
        clock.shift(841)
        batches.drain()
    assert (batches.runs(), batches.invoked) == ([], [])
    count = batches.outside.get_queue_attributes(QueueUrl=batches.resources.outcomes_queue, AttributeNames=["All"])
    assert count["Attributes"]["ApproximateNumberOfMessagesDelayed"] == "0"  # it is not repeated for ever


@pytest.mark.parametrize("kind", FORGED_TICKS)
def test_the_token_of_one_tick_is_of_no_other(batches: Batches, kind: str) -> None:
    deploy_hourly(batches)
    right = signed(batches, tick(HOUR - 3_600_000 * 48))
    forge(batches, {**FORGED_TICKS[kind], "token": right["token"]})
    assert (batches.runs(), batches.invoked) == ([], [])


@pytest.mark.parametrize("at", [None, "now", 1.5, [HOUR], {}])
def test_a_tick_at_what_is_no_time_fails_alone(batches: Batches, at: Any) -> None:
    deploy_hourly(batches)
    answer = batches.consumer.advance(sqs_event([tick(at), signed(batches, tick(HOUR))]))
    assert len(answer["batchItemFailures"]) <= 1
    assert len(batches.invoked) == 1


def test_a_tick_that_is_due_starts_one_run_however_often_it_is_said(batches: Batches) -> None:
    deploy_hourly(batches)
    fields = signed(batches, tick(HOUR))
    forge(batches, fields, fields)
    forge(batches, fields)
    assert len(batches.invoked) == 1


def test_a_tick_that_comes_before_the_push_is_known_here_is_looked_at_again(batches: Batches, clock: Any) -> None:
    batches.deploy({"a": handler_step()}, id="other")
    behind = Process(batches.resources)
    behind.session.registry.catalog()
    deploy_hourly(batches)
    assert behind.consumer.advance(sqs_event([signed(batches, tick(HOUR))])) == {"batchItemFailures": []}
    assert batches.invoked == []
    clock.shift(841)
    batches.drain()
    assert len(batches.invoked) == 1


def test_a_tick_that_comes_early_since_a_clock_is_behind_starts_its_run_in_time(batches: Batches, clock: Any) -> None:
    deploy_hourly(batches)
    clock.move_to(datetime(2026, 6, 1, 10, 59, 59, 900_000, tzinfo=UTC))
    forge(batches, signed(batches, tick(HOUR + 3_600_000)))
    assert batches.invoked == []
    clock.shift(1)
    batches.drain()
    assert len(batches.invoked) == 1
    assert now_ms() > HOUR + 3_600_000


# --- waits -----------------------------------------------------------------------------------------------------------


def test_a_wake_without_its_token_wakes_nothing(batches: Batches) -> None:
    """No other event wakes the run, and no event that may wake nothing because it was stored for a replay."""
    begin(batches, {"a": handler_step({"step": "$trigger", "async": PAID})})
    batches.deploy({"a": handler_step()}, id="g")
    replayed = event_from({"name": "paid", "id": "replayed", "ts": now_ms()})
    assert batches.control.replay("g", 1, [replayed], "again") is not None
    batches.invoked.clear()
    other = batches.send("something/else")
    batches.drain()
    for event in (other, "replayed"):
        name = {"event": event, "partition": wait_partitions("paid", None)[0], "after": "0"}
        forge(batches, {"stepwell": "wake", **name}, {"stepwell": "wake", **name, "token": "0" * 32})
    assert batches.invoked == []
    assert {stored.function: stored.run.status for stored, _ in batches.runs()}["f"] is RunStatus.RUNNING


def test_a_tick_that_arrives_after_a_pause_starts_nothing_and_is_acknowledged(batches: Batches, clock: Any) -> None:
    deploy_hourly(batches)
    batches.control.change_routing("f", lambda old, versions, now: paused(old, drop=False))
    clock.shift(10)  # a catalog is up to five seconds old
    forge(batches, signed(batches, tick(HOUR)))
    assert (batches.runs(), batches.invoked) == ([], [])

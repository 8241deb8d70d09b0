"""Lost, late, throttled, broken and forged messages: runs go on, and no other run is held up."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from stepwell.aws import clients
from stepwell.aws.engine.session import now_ms
from stepwell.aws.engine.sweeper import Sweeper, open_runs
from stepwell.aws.engine.watches import watch_item
from stepwell.aws.table.items import put_items, read_item
from stepwell.aws.table.keys import STATUS_SHARDS, run_key, shard_of, sweep_key
from stepwell.core.run.run import RunStatus, StepStatus, pack
from stepwell.testing.account.meter import metered
from stepwell.testing.batches import LOST, Batches, Json, destination, handler_step, sqs_event

AGE_S, TIMEOUT_S, START_S = 3600, 30, 60
LATE_S = 120  # after this time the message of a timer counts as lost


def sweep(batches: Batches) -> None:
    """Sweeps, and processes the messages of the sweeper."""
    batches.scheduler.sweep(range(8))
    batches.drain()


def attempts(batches: Batches) -> list[str]:
    """How the attempts of the only run ended."""
    ((_, items),) = batches.runs()
    return [attempt.status for attempt in items]


def status(batches: Batches) -> RunStatus:
    ((stored, _),) = batches.runs()
    return stored.run.status


def purge(batches: Batches) -> None:
    """Deletes all messages to the engine that are on their way."""
    batches.outside.purge_queue(QueueUrl=batches.resources.outcomes_queue)


# --- lost invocations ------------------------------------------------------------------------------------------------


def test_a_lost_invocation_is_closed_as_lost_in_time_and_not_before(batches: Batches, clock: Any) -> None:
    batches.answer = lambda ctx: LOST if ctx["attempt"] == 1 else {}
    batches.deploy({"a": handler_step(timeout=f"{TIMEOUT_S}s")})
    batches.send()
    batches.drain()
    clock.shift(AGE_S + TIMEOUT_S + START_S - 1)
    sweep(batches)
    assert [payload["ctx"]["attempt"] for payload in batches.invoked] == [1]
    clock.shift(1)
    sweep(batches)
    assert [payload["ctx"]["attempt"] for payload in batches.invoked] == [1, 2]
    batches.drain()
    assert attempts(batches) == ["lost", "completed"]
    assert status(batches) is RunStatus.COMPLETED


def test_a_lambda_that_is_not_ours_and_does_not_answer_fails_for_good(batches: Batches, clock: Any) -> None:
    """Lambda drops an answer of 1 MB without a report, and would do so again."""
    arn = "arn:aws:lambda:eu-west-1:123456789012:function:mine"
    batches.answer = lambda ctx: LOST
    batches.deploy({"a": handler_step(runtime={"type": "lambda", "arn": arn}, timeout=f"{TIMEOUT_S}s", retries={})})
    batches.send()
    batches.drain()
    clock.shift(AGE_S + TIMEOUT_S + START_S)
    sweep(batches)
    batches.drain()
    ((stored, (attempt,)),) = batches.runs()
    assert (stored.run.status, attempt.status, len(batches.invoked)) == (RunStatus.FAILED, "failed", 1)
    error = json.loads(attempt.error or b"")
    assert error["kind"] == "no_answer"
    assert arn in error["message"]
    assert "1 MB" in error["message"]


@pytest.mark.parametrize("token", [None, "0" * 32, 7])
def test_nobody_but_the_sweeper_says_that_an_attempt_is_lost(batches: Batches, token: Any) -> None:
    batches.answer = lambda ctx: LOST
    batches.deploy({"a": handler_step()})
    batches.send()
    batches.drain()
    run_id = batches.invoked[0]["ctx"]["run_id"]
    forged = {"stepwell": "sweep", "run": run_id, "facts": [["AttemptLost", 0, 1]], "token": token}
    assert batches.consumer.advance(sqs_event([forged])) == {"batchItemFailures": []}
    assert (len(batches.invoked), attempts(batches)) == (1, [])


def test_nobody_but_the_engine_sends_the_engines_own_events(batches: Batches) -> None:
    batches.deploy({"a": handler_step()}, on="stepwell/function.rolled_back")
    event = json.dumps({"name": "stepwell/function.rolled_back", "id": "x", "ts": 1})
    forged = {"stepwell": "tell", "event": event, "token": "0" * 32}
    assert batches.consumer.advance(sqs_event([forged])) == {"batchItemFailures": []}
    assert batches.runs() == []


def test_a_fourth_loss_is_a_final_failure(batches: Batches, clock: Any) -> None:
    batches.answer = lambda ctx: LOST
    batches.deploy({"a": handler_step(timeout=f"{TIMEOUT_S}s", retries={"attempts": 5})})
    batches.send()
    for _ in range(5):
        batches.drain()
        clock.shift(AGE_S + TIMEOUT_S + START_S)
        sweep(batches)
    assert attempts(batches) == ["lost"] * 4
    assert status(batches) is RunStatus.FAILED


def test_a_lost_attempt_of_a_run_that_has_failed_is_closed_too(batches: Batches, clock: Any) -> None:
    batches.answer = lambda ctx: LOST if ctx["step_id"] == "lost" else {"status": 400}
    batches.deploy({"bad": handler_step(), "lost": handler_step(timeout=f"{TIMEOUT_S}s")})
    batches.send()
    batches.drain()
    assert status(batches) is RunStatus.FAILED
    clock.shift(AGE_S + TIMEOUT_S + START_S)
    sweep(batches)
    assert sorted(attempts(batches)) == ["failed", "lost"]
    ((stored, _),) = batches.runs()
    assert StepStatus.RUNNING not in [step.status for step in stored.run.steps]
    with metered() as meter:
        sweep(batches)
    assert (meter.write_units, len(batches.invoked)) == (0, 2)


def test_an_outcome_after_its_attempt_was_lost_changes_nothing(batches: Batches, clock: Any) -> None:
    batches.answer = lambda ctx: LOST
    batches.deploy({"a": handler_step(timeout=f"{TIMEOUT_S}s")})
    batches.send()
    batches.drain()
    clock.shift(AGE_S + TIMEOUT_S + START_S)
    sweep(batches)
    batches.put_outcome(destination(batches.invoked[0], {"late": True}))
    batches.drain()
    assert (attempts(batches), status(batches)) == (["lost"], RunStatus.RUNNING)
    batches.put_outcome(destination(batches.invoked[1], {}))
    batches.drain()
    assert (attempts(batches), status(batches)) == (["lost", "completed"], RunStatus.COMPLETED)


def test_the_sweeper_writes_nothing_about_runs_that_are_on_time(batches: Batches, clock: Any) -> None:
    batches.answer = lambda ctx: LOST
    batches.deploy({"a": handler_step(), "b": handler_step({"step": "$trigger", "wait": "3d"})})
    batches.send()
    batches.drain()
    clock.shift(600)
    with metered() as meter:
        sweep(batches)
    assert meter.write_units == 0
    assert meter.count("lambda") == meter.count("sqs") == 0


def test_each_run_is_looked_at_every_eight_minutes(batches: Batches, clock: Any) -> None:
    batches.answer = lambda ctx: LOST
    batches.deploy({"a": handler_step(timeout=f"{TIMEOUT_S}s")})
    for number in range(8):
        batches.send(data={"n": number})
    batches.drain()
    clock.shift(AGE_S + TIMEOUT_S + START_S)
    for _ in range(8):
        batches.scheduler.tick()
        batches.drain()
        clock.shift(60)
    assert [payload["ctx"]["attempt"] for payload in batches.invoked].count(2) == 8


def test_a_sweep_that_has_no_time_left_goes_on_the_next_time_and_begins_again_after_the_end(
    batches: Batches, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches.answer = lambda ctx: LOST
    batches.deploy({"a": handler_step()})
    for number in range(60):
        batches.send(id=f"event {number}")  # contains the id of the run, and so the shard
    batches.drain()
    clock.shift(LATE_S + 1)  # before, nothing can be overdue
    monkeypatch.setattr("stepwell.aws.engine.sweeper._PAGE", 2)
    rounds: list[list[str]] = []

    def look(self: Sweeper, ids: list[str], **_: Any) -> None:
        rounds[-1] += ids

    monkeypatch.setattr(Sweeper, "_check", look)
    for _ in range(10):
        batches.start()
        rounds.append([])
        batches.scheduler.sweeper.sweep(3, until=now_ms())  # there is time for one page
    rounds.append([])
    batches.scheduler.sweep([3])
    everything = rounds.pop()
    assert len(everything) > 4
    looked_at = [run for some in rounds for run in some]
    assert looked_at[: len(everything)] == everything
    assert looked_at[len(everything) : 2 * len(everything)] == everything[: len(looked_at) - len(everything)]


def test_open_runs_are_listed_from_where_somebody_stopped(batches: Batches) -> None:
    """Runs that are open, and runs that have failed but still have running attempts."""
    batches.answer = lambda ctx: {"status": 400} if ctx["step_id"] == "a" else LOST
    batches.deploy({"a": handler_step({"step": "$trigger", "if": "event.data.n % 2 == 0"}), "b": handler_step()})
    for number in range(30):
        batches.send(data={"n": number})
    batches.drain()
    listed: list[str] = []
    for shard in range(STATUS_SHARDS):
        whole = [row.run_id for rows, _ in open_runs(batches.resources, shard, 100) for row in rows]
        assert one_by_one(batches, shard) == whole
        listed += whole
    assert sorted(listed) == sorted(stored.run.id for stored, _ in batches.runs())
    assert {stored.run.status for stored, _ in batches.runs()} == {RunStatus.RUNNING, RunStatus.FAILED}


def one_by_one(batches: Batches, shard: int) -> list[str]:
    """The open runs of a shard, each page read by a new process."""
    found, start = list[str](), None
    while True:
        for rows, following in open_runs(batches.resources, shard, 1, start):
            found += [row.run_id for row in rows]
            if following is not None:
                start = following
                break
        else:
            return found


def test_what_one_part_of_a_sweep_has_done_is_written_down_though_another_failed(batches: Batches, clock: Any) -> None:
    now = now_ms()
    put_items(batches.resources.table, [watch_item("run", now, now)])
    clock.shift(600)
    shard = shard_of("run", STATUS_SHARDS)
    with (
        failing("dynamodb", "Query", "ProvisionedThroughputExceededException", lambda body: "IndexName" in body),
        pytest.raises(clients.client("dynamodb").exceptions.ProvisionedThroughputExceededException),
    ):
        batches.scheduler.sweeper.sweep(shard, until=now_ms() + 1000)
    progress = read_item(batches.resources.table, sweep_key(shard))
    assert progress is not None
    assert progress["w"]["S"].endswith("#run")


def test_an_attempt_that_was_lost_after_its_run_failed_is_closed(batches: Batches, clock: Any) -> None:
    batches.answer = lambda ctx: {"status": 400} if ctx["step_id"] == "a" else LOST
    batches.deploy({"a": handler_step(), "b": handler_step(timeout=f"{TIMEOUT_S}s")})
    batches.send()
    batches.drain()
    assert (status(batches), attempts(batches)) == (RunStatus.FAILED, ["failed"])
    clock.shift(AGE_S + TIMEOUT_S + START_S)
    sweep(batches)
    assert sorted(attempts(batches)) == ["failed", "lost"]
    with metered() as meter:
        sweep(batches)
    assert meter.write_units == 0


# --- invocations that were never started -----------------------------------------------------------------------------


def expired(payload: Json) -> Json:
    """Lambda's record of an invocation that waited in Lambda's queue until it was too old."""
    record = destination(payload, None, "EventAgeExceeded")
    del record["responseContext"], record["responsePayload"]
    return record


def test_an_expired_invocation_is_started_again_and_is_neither_loss_nor_retry(batches: Batches, clock: Any) -> None:
    batches.answer = lambda ctx: LOST
    batches.deploy({"a": handler_step(timeout=f"{TIMEOUT_S}s")})  # without retries
    batches.send()
    batches.drain()
    clock.shift(AGE_S)
    batches.put_outcome(expired(batches.invoked[0]))
    batches.drain()
    assert len(batches.invoked) == 1  # not at once, because something is overloaded
    clock.shift(AGE_S // 10)
    batches.drain()
    first, second = batches.invoked
    assert first == second  # the same attempt
    batches.put_outcome(destination(second, {}))
    batches.drain()
    assert attempts(batches) == ["completed"]


def test_the_sweeper_does_not_overtake_an_expired_invocation(batches: Batches, clock: Any) -> None:
    batches.answer = lambda ctx: LOST
    batches.deploy({"a": handler_step(timeout=f"{TIMEOUT_S}s")})
    batches.send()
    batches.drain()
    clock.shift(AGE_S)
    batches.put_outcome(expired(batches.invoked[0]))
    batches.drain()
    clock.shift(AGE_S // 10 - 1)  # just before it is started again
    sweep(batches)
    assert (attempts(batches), len(batches.invoked)) == ([], 1)
    clock.shift(1)
    batches.drain()
    assert len(batches.invoked) == 2
    clock.shift(AGE_S + TIMEOUT_S + START_S - 1)
    sweep(batches)
    assert attempts(batches) == []
    clock.shift(1)
    sweep(batches)
    assert attempts(batches) == ["lost"]


def test_an_expired_invocation_whose_message_was_lost_is_lost_in_the_end(batches: Batches, clock: Any) -> None:
    batches.answer = lambda ctx: LOST
    batches.deploy({"a": handler_step(timeout=f"{TIMEOUT_S}s")})
    batches.send()
    batches.drain()
    clock.shift(AGE_S)
    batches.put_outcome(expired(batches.invoked[0]))
    batches.drain()
    purge(batches)
    clock.shift(AGE_S // 10 + AGE_S + TIMEOUT_S + START_S)
    sweep(batches)
    assert attempts(batches) == ["lost"]
    assert [payload["ctx"]["attempt"] for payload in batches.invoked] == [1, 2]


# --- timers ----------------------------------------------------------------------------------------------------------

RETRY = {"attempts": 1, "backoff": {"initial": "10m", "jitter": 0}}
PAID = {"event": "paid", "match": "async.data.order == event.data.order", "ttl": "10m", "onTimeout": True}
TIMERS = {  # each fires after ten minutes; a deadline two seconds later
    "delay": ({"a": handler_step({"step": "$trigger", "wait": "10m"})}, 600),
    "retry": ({"a": handler_step(retries=RETRY)}, 600),
    "deadline": ({"a": handler_step({"step": "$trigger", "async": PAID})}, 602),
}


@pytest.mark.parametrize("kind", TIMERS)
def test_a_timer_whose_message_was_lost_fires_by_the_sweeper(batches: Batches, clock: Any, kind: str) -> None:
    steps, _ = TIMERS[kind]
    batches.answer = lambda ctx: {"status": 503} if kind == "retry" and ctx["attempt"] == 1 else {}
    batches.deploy(steps)
    batches.send(data={"order": 1})
    batches.drain()
    before = len(batches.invoked)
    purge(batches)
    clock.shift(600 + LATE_S - 1)
    sweep(batches)
    assert len(batches.invoked) == before
    clock.shift(1)
    sweep(batches)
    assert len(batches.invoked) == before + 1
    batches.drain()
    assert status(batches) is RunStatus.COMPLETED


def test_an_approval_whose_timer_was_lost_ends_by_the_sweeper_and_is_never_lost(batches: Batches, clock: Any) -> None:
    asks = {"runtime": {"type": "approval", "message": "Really?"}, "timeout": "10m"}
    batches.deploy({"ask": asks})
    batches.send()
    batches.drain()
    purge(batches)
    batches.scheduler.sweep(range(8), silence_ms=0)
    clock.shift(600 + LATE_S - 1)
    batches.scheduler.sweep(range(8), silence_ms=0)
    assert status(batches) is RunStatus.RUNNING
    clock.shift(1)
    sweep(batches)
    ((_, attempts),) = batches.runs()
    assert status(batches) is RunStatus.FAILED
    assert [(attempt.attempt, attempt.status) for attempt in attempts] == [(1, "failed")]


@pytest.mark.parametrize("kind", TIMERS)
def test_a_timer_fires_to_the_second(batches: Batches, clock: Any, kind: str) -> None:
    steps, after_s = TIMERS[kind]
    batches.answer = lambda ctx: {"status": 503} if kind == "retry" and ctx["attempt"] == 1 else {}
    batches.deploy(steps)
    batches.send(data={"order": 1})
    batches.drain()
    before = len(batches.invoked)
    clock.shift(after_s - 0.001)
    batches.drain()
    assert len(batches.invoked) == before
    clock.shift(0.001)
    batches.drain()
    assert len(batches.invoked) == before + 1


def test_an_event_in_the_last_second_beats_the_deadline(batches: Batches, clock: Any) -> None:
    batches.deploy({"late": handler_step({"step": "$trigger", "async": PAID})})
    batches.send(data={"order": 1})
    batches.drain()
    clock.shift(599.9)
    batches.send("paid", {"order": 1})
    clock.shift(0.05)
    batches.drain()
    clock.shift(3)
    batches.drain()
    assert (status(batches), batches.invoked) == (RunStatus.COMPLETED, [])  # the edge is dead, the step is skipped


def far_timers(batches: Batches) -> int:
    items = batches.outside_db.scan(TableName=batches.resources.table)["Items"]
    return sum(item["pk"]["S"].startswith("T#") for item in items)


def move(batches: Batches) -> int:
    return batches.scheduler.far_timers.move(now_ms(), until=now_ms() + 1)


def test_a_far_timer_fires_to_the_second_and_then_its_item_is_gone(batches: Batches, clock: Any) -> None:
    batches.deploy({"a": handler_step({"step": "$trigger", "wait": "3h"})})
    batches.send()
    batches.drain()
    clock.shift(3 * 3600 - 601)
    assert move(batches) == 0
    clock.shift(60.25)
    assert move(batches) == 1
    assert far_timers(batches) == 1
    clock.shift(540.5)
    batches.drain()
    assert batches.invoked == []
    clock.shift(0.5)  # SQS delays by whole seconds
    batches.drain()
    assert (len(batches.invoked), far_timers(batches)) == (1, 0)


def test_a_far_timer_is_sent_once_though_its_item_stays(batches: Batches, clock: Any) -> None:
    batches.deploy({"a": handler_step({"step": "$trigger", "wait": "3h"})})
    batches.send()
    batches.drain()
    clock.shift(3 * 3600 - 600)
    moved = []
    for _ in range(10):
        moved.append(move(batches))
        clock.shift(59)
    assert moved == [1] + [0] * 9


def test_a_far_timer_that_was_sent_twice_fires_once(batches: Batches, clock: Any) -> None:
    """`tick` died before it stored the cursor."""
    batches.deploy({"a": handler_step({"step": "$trigger", "wait": "3h"})})
    batches.send()
    batches.drain()
    clock.shift(3 * 3600 - 60)
    with failing("dynamodb", "PutItem", "InternalServerError"), pytest.raises(Exception, match="as planned"):
        move(batches)
    assert move(batches) == 1
    clock.shift(60)
    batches.drain()
    assert (len(batches.invoked), far_timers(batches)) == (1, 0)


def test_all_far_timers_of_a_downtime_fire_at_the_first_tick(batches: Batches, clock: Any) -> None:
    batches.deploy({"a": handler_step({"step": "$trigger", "wait": "1h"})})
    for number in range(25):
        batches.send(data={"n": number})
    batches.drain()
    clock.shift(86_400)
    assert move(batches) == 25
    batches.drain()
    assert (len(batches.invoked), far_timers(batches)) == (25, 0)


# --- throttled -------------------------------------------------------------------------------------------------------


@contextmanager
def failing(service: str, operation: str, code: str, when: Callable[[str], bool] = lambda body: True) -> Iterator[None]:
    """Requests whose body is one of those are refused, even after boto3's own retries."""
    client = clients.client(service)
    known = getattr(client.exceptions, code)

    def refuse(params: Json, **_: Any) -> None:
        body = params["body"]
        if when(body.decode() if isinstance(body, bytes) else body):
            raise known({"Error": {"Code": code, "Message": "refused as planned"}}, operation)

    name = f"before-call.{service}.{operation}"
    client.meta.events.register_first(name, refuse)
    try:
        yield
    finally:
        client.meta.events.unregister(name, refuse)


def three_runs(batches: Batches) -> list[Json]:
    """Three runs of two steps, with the first step's invocation each."""
    batches.answer = lambda ctx: LOST
    batches.deploy({"a": handler_step(), "b": handler_step("a")})
    for number in range(3):
        batches.send(data={"n": number}, id=f"e{number}")
    batches.route()
    return list(batches.invoked)


def failures(event: Json, answer: Json) -> list[int]:
    """The messages of a batch that are delivered again."""
    ids = [record["messageId"] for record in event["Records"]]
    return sorted(ids.index(failure["itemIdentifier"]) for failure in answer["batchItemFailures"])


def test_when_the_table_is_throttled_for_a_run_only_its_message_comes_again(batches: Batches) -> None:
    invoked = three_runs(batches)
    event = sqs_event([destination(payload, {}) for payload in invoked])
    second = invoked[1]["ctx"]["run_id"]
    with failing("dynamodb", "PutItem", "ProvisionedThroughputExceededException", lambda body: f"R#{second}" in body):
        assert failures(event, batches.consumer.advance(event)) == [1]
    assert [payload["ctx"]["run_id"] for payload in batches.invoked[3:]].count(second) == 0
    assert len(batches.invoked) == 5
    assert failures(event, batches.consumer.advance(event)) == []
    assert len(batches.invoked) == 6


def test_when_the_table_is_throttled_for_an_event_only_its_message_comes_again(batches: Batches, clock: Any) -> None:
    batches.deploy({"a": handler_step()})
    batches.send(id="one")
    batches.send(id="two")
    with failing("dynamodb", "PutItem", "ProvisionedThroughputExceededException", lambda body: "E#two" in body):
        batches.route()
    assert len(batches.invoked) == 1
    clock.shift(1)
    batches.drain()
    assert len(batches.invoked) == 2


def test_when_reads_are_throttled_all_messages_come_again(batches: Batches) -> None:
    invoked = three_runs(batches)
    event = sqs_event([destination(payload, {}) for payload in invoked])
    with failing("dynamodb", "BatchGetItem", "ProvisionedThroughputExceededException"):
        assert failures(event, batches.consumer.advance(event)) == [0, 1, 2]
    assert failures(event, batches.consumer.advance(event)) == []
    assert len(batches.invoked) == 6


def again(event: Json) -> Json:
    """The same messages, delivered a second time."""
    records = [{**record, "attributes": {"ApproximateReceiveCount": "2"}} for record in event["Records"]]
    return {"Records": records}


def test_when_lambda_fails_only_the_attempt_that_may_not_have_started_is_started_again(
    batches: Batches, clock: Any
) -> None:
    invoked = three_runs(batches)
    event = sqs_event([destination(payload, {}) for payload in invoked])
    second = invoked[1]["ctx"]["run_id"]
    with failing("lambda", "Invoke", "ServiceException", lambda body: second in body):
        assert failures(event, batches.consumer.advance(event)) == []
    assert second not in [payload["ctx"]["run_id"] for payload in batches.invoked[3:]]
    clock.shift(1)
    batches.drain()
    started = sorted((payload["ctx"]["run_id"], payload["ctx"]["attempt"]) for payload in batches.invoked[3:])
    assert started == sorted((payload["ctx"]["run_id"], 1) for payload in invoked)


def test_what_cannot_be_started_for_as_long_as_it_may_wait_has_failed_and_says_why(
    batches: Batches, clock: Any
) -> None:
    batches.deploy({"a": handler_step(retries={"attempts": 0})})
    batches.send()
    with failing("lambda", "Invoke", "KMSAccessDeniedException"):
        for _ in range(AGE_S // 60 + 2):
            batches.drain()
            clock.shift(60)
    ((stored, (attempt,)),) = batches.runs()
    assert (stored.run.status, attempt.status, batches.invoked) == (RunStatus.FAILED, "failed", [])
    assert b"KMSAccessDeniedException" in (attempt.error or b"")


def test_when_lambda_fails_at_the_runs_start_its_step_starts_later(batches: Batches, clock: Any) -> None:
    batches.deploy({"a": handler_step()})
    batches.send()
    with failing("lambda", "Invoke", "ServiceException"):
        batches.route()
    assert batches.invoked == []
    clock.shift(1)
    batches.drain()
    assert len(batches.invoked) == 1
    assert status(batches) is RunStatus.COMPLETED


def test_a_lambda_that_is_gone_for_a_minute_is_a_failure_that_says_what_to_do(batches: Batches, clock: Any) -> None:
    batches.deploy({"a": handler_step()})
    batches.send()
    with failing("lambda", "Invoke", "ResourceNotFoundException"):
        for _ in range(4):
            batches.drain()
            clock.shift(60)
    ((stored, (attempt,)),) = batches.runs()
    assert stored.run.status is RunStatus.FAILED
    assert b"stepwell push" in (attempt.error or b"")


# --- broken and forged -----------------------------------------------------------------------------------------------

POISON: dict[str, str] = {
    "no JSON": "{nonsense",
    "empty": "",
    "a list": "[]",
    "a number": "17",
    "null": "null",
    "an object that says nothing": "{}",
    "an unknown kind": '{"stepwell": "dance", "run": "x"}',
    "a timer of nothing": '{"stepwell": "timer"}',
    "a timer of an unknown kind": '{"stepwell": "timer", "run": "x", "timer": [99, 0, 0]}',
    "a timer of the wrong type": '{"stepwell": "timer", "run": {"a": 1}, "timer": "soon"}',
    "an outcome without a payload": '{"requestPayload": null}',
    "an outcome of the wrong types": '{"requestPayload": {"ctx": []}, "requestContext": 7}',
    "a page of waits of nothing": '{"stepwell": "wake"}',
    "a tick of nothing": '{"stepwell": "tick"}',
    "deeply nested": "[" * 5000 + "]" * 5000,
}


@pytest.mark.parametrize("kind", POISON)
def test_a_message_that_cannot_be_read_fails_alone(batches: Batches, kind: str) -> None:
    invoked = three_runs(batches)
    event = sqs_event([destination(payload, {}) for payload in invoked])
    poison = {"messageId": "poison", "body": POISON[kind], "attributes": {"ApproximateReceiveCount": "1"}}
    event["Records"].insert(1, poison)
    assert batches.consumer.advance(event) == {"batchItemFailures": [{"itemIdentifier": "poison"}]}
    assert len(batches.invoked) == 6


@pytest.mark.parametrize(
    "body",
    [
        "{nonsense",
        "[]",
        "{}",
        '{"source": "stepwell.api", "id": "1", "detail": 7}',
        '{"source": "stepwell.api", "id": "1", "detail": {"data": {}}}',
        '{"source": "aws.s3", "id": "1", "detail-type": "", "detail": {}, "time": "2026-06-01T10:00:30Z"}',
        '{"source": "aws.s3", "id": "1", "detail-type": "x", "detail": {}, "time": "yesterday"}',
    ],
)
def test_an_event_that_cannot_be_read_fails_alone(batches: Batches, body: str) -> None:
    batches.deploy({"a": handler_step()})
    batches.send()
    queue = batches.resources.events_queue
    (message,) = batches.outside.receive_message(QueueUrl=queue, AttributeNames=["All"])["Messages"]
    good = {"messageId": "good", "body": message["Body"], "attributes": message["Attributes"]}
    poison = {"messageId": "poison", "body": body, "attributes": {"ApproximateReceiveCount": "1"}}
    assert batches.consumer.route({"Records": [poison, good]}) == {"batchItemFailures": [{"itemIdentifier": "poison"}]}
    assert len(batches.invoked) == 1


def without_token(ctx: Json) -> Json:
    return {name: value for name, value in ctx.items() if name != "token"}


FORGED: dict[str, Callable[[Json], Json]] = {
    "no token": without_token,
    "an empty token": lambda ctx: {**ctx, "token": ""},
    "a token that is no text": lambda ctx: {**ctx, "token": {"$ne": 1}},
    "a token with other letters": lambda ctx: {**ctx, "token": "ü" * 32},
    "the token of another attempt": lambda ctx: {**ctx, "attempt": ctx["attempt"] + 1},
    "the token of another step": lambda ctx: {**ctx, "step_id": "b"},
    "the token of another run": lambda ctx: {**ctx, "run_id": "a" * 26},
}


@pytest.mark.parametrize("kind", FORGED)
def test_an_outcome_without_its_attempts_token_changes_nothing(batches: Batches, kind: str) -> None:
    payload = three_runs(batches)[0]
    before = batches.runs()
    forged = {**payload, "ctx": FORGED[kind](payload["ctx"])}
    with metered() as meter:
        for condition in ("Success", "EventAgeExceeded"):
            event = sqs_event([destination(forged, {"forged": True}, condition)])
            assert batches.consumer.advance(event) == {"batchItemFailures": []}
    assert (meter.write_units, meter.count("sqs"), meter.count("lambda")) == (0, 0, 0)
    assert batches.runs() == before


@pytest.mark.parametrize("kind", ["outcome", "again"])
def test_the_engines_own_words_are_refused_without_the_token_too(batches: Batches, kind: str) -> None:
    ctx = three_runs(batches)[0]["ctx"]
    name = {"stepwell": kind, "run": ctx["run_id"], "step": ctx["step_id"], "attempt": 1, "token": "0" * 32}
    event = sqs_event([{**name, "error": {"kind": "x", "message": "forged", "retryable": False}}])
    before = json.dumps(batches.runs(), default=str)
    assert batches.consumer.advance(event) == {"batchItemFailures": []}
    assert json.dumps(batches.runs(), default=str) == before
    assert len(batches.invoked) == 3


# --- queued attempts -------------------------------------------------------------------------------------------------


def test_a_step_that_was_left_queued_is_started(batches: Batches, clock: Any) -> None:
    """An attempt is claimed in the write that queues it, but an earlier version of Stepwell wrote runs without the
    claim.
    """
    batches.answer = lambda ctx: LOST
    batches.deploy({"a": handler_step()})
    batches.send()
    batches.drain()
    ((stored, _),) = batches.runs()
    (step,) = stored.run.steps
    queued = stored.run._replace(steps=(step._replace(status=StepStatus.QUEUED),))
    batches.outside_db.update_item(
        TableName=batches.resources.table,
        Key=run_key(stored.run.id),
        UpdateExpression="SET s = :s REMOVE c",
        ExpressionAttributeValues={":s": {"B": pack(queued)}},
    )
    batches.start()
    clock.shift(LATE_S - 1)
    sweep(batches)
    assert len(batches.invoked) == 1
    clock.shift(1)
    sweep(batches)
    assert [payload["ctx"]["attempt"] for payload in batches.invoked] == [1, 1]

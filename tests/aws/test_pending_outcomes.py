"""Runs with many parallel steps: outcomes are stored one by one and folded together."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from stepwell.aws.api.queries import Queries
from stepwell.aws.engine.batch import DynamoBatch
from stepwell.aws.engine.session import now_ms
from stepwell.aws.resources import Resources
from stepwell.aws.table.keys import run_key
from stepwell.aws.table.pending_outcomes import Ended, outcome_items
from stepwell.core.run.approvals import Link
from stepwell.core.run.messages import AttemptEnded, Outcome, TimerKind
from stepwell.core.run.resume import Restart
from stepwell.core.run.run import RunStatus, StepStatus
from stepwell.platform import NotWritten, RunRecord, Transition
from stepwell.testing.account.meter import item_size, metered
from stepwell.testing.batches import LOST, Batches, Json, Process, destination, handler_step, sqs_event
from tests.aws.beginnings import Beginning

MAX_ITEM = 400_000


def fan(count: int, join: str = "all") -> Json:
    """Parallel steps, and one step that joins them."""
    parallel = {f"s{number}": handler_step() for number in range(count)}
    return {**parallel, "join": handler_step(*parallel, join=join)}


def started(resources: Resources, steps: Json, answer: Any = lambda ctx: {"ok": ctx["step_id"]}) -> Batches:
    """One run of these steps, with all parallel steps started."""
    batches = Batches(resources, answer)
    batches.deploy(steps)
    batches.send()
    assert batches.route()
    return batches


def run_item(batches: Batches) -> Json:
    run_id = batches.invoked[0]["ctx"]["run_id"]
    item: Json = batches.outside_db.get_item(TableName=batches.resources.table, Key=run_key(run_id))["Item"]
    return item


def assert_joined(batches: Batches, count: int) -> None:
    """The run is complete, and the join ran once with all outputs."""
    ((stored, attempts),) = batches.runs()
    assert stored.run.status is RunStatus.COMPLETED
    assert all(step.status is StepStatus.COMPLETED for step in stored.run.steps)
    assert len(attempts) == count + 1
    (joined,) = [payload for payload in batches.invoked if payload["ctx"]["step_id"] == "join"]
    assert joined["steps"] == {f"s{number}": {"ok": f"s{number}"} for number in range(count)}


def test_a_thousand_parallel_steps_cost_some_thirty_writes(resources: Resources) -> None:
    count = 999  # and the join: more than 1,000 steps are refused
    with metered() as meter:
        batches = started(resources, fan(count), lambda ctx: LOST)
        assert len(batches.invoked) == count
        records = [destination(payload, {"ok": payload["ctx"]["step_id"]}) for payload in batches.invoked]
        for first in range(0, count, 10):
            assert batches.consumer.advance(sqs_event(records[first : first + 10])) == {"batchItemFailures": []}
            assert item_size(run_item(batches)) < MAX_ITEM / 4
        batches.consumer.advance(sqs_event([destination(batches.invoked[-1], {})]))
    assert meter.writes_of("R#", "r") <= 1 + 25 + 1  # it is created, forty outcomes are folded at once, it ends
    assert_joined(batches, count)


def test_lambdas_that_fold_at_the_same_time_share_the_work(resources: Resources) -> None:
    batches = started(resources, fan(120))

    def work(process: Process) -> None:
        while batches.deliver(resources.outcomes_queue, process.consumer.advance):
            pass

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, [Process(batches.resources) for _ in range(4)]))
    batches.drain()  # steps that the last of them may have started
    assert_joined(batches, 120)


@pytest.mark.parametrize("count", [32, 33])  # running attempts; with more than 32 a run is wide
def test_the_border_between_narrow_and_wide_runs(resources: Resources, count: int) -> None:
    batches = started(resources, fan(count))
    with metered() as meter:
        batches.drain()
    assert_joined(batches, count)
    outcomes = [call for call in meter.calls if call.sort_key.startswith("o#")]
    assert bool(outcomes) == (count > 32)


def chain(count: int) -> Json:
    return {f"s{number}": handler_step(*([f"s{number - 1}"] if number else [])) for number in range(count)}


def test_many_steps_in_sequence_cost_what_few_do_each(resources: Resources) -> None:
    batches = started(resources, chain(60))
    with metered() as meter:
        batches.drain()
    ((stored, _),) = batches.runs()
    assert stored.run.status is RunStatus.COMPLETED
    assert meter.writes_of("R#", "r") == 60
    assert meter.operations()["dynamodb.Query"] == 0
    assert not [call for call in meter.calls if call.sort_key.startswith("o#")]


def test_of_a_wide_run_the_steps_in_sequence_cost_what_they_cost_elsewhere(resources: Resources) -> None:
    steps = fan(40)
    batches = started(resources, {**steps, **{f"c{n}": handler_step(f"c{n - 1}" if n else "join") for n in range(20)}})
    while "c3" not in {payload["ctx"]["step_id"] for payload in batches.invoked}:
        assert batches.advance()
    with metered() as meter:
        batches.drain()
    assert meter.writes_of("R#", "r") == 17
    assert meter.operations()["dynamodb.Query"] == 0


def test_what_a_wide_run_reads_grows_with_its_steps_and_not_with_their_square(resources: Resources) -> None:
    """No read returns more than was stored for the last three writes of the run, of forty outcomes each."""
    batches = started(resources, fan(240), lambda ctx: LOST)
    records = [destination(payload, {"ok": payload["ctx"]["step_id"]}) for payload in batches.invoked]
    with metered() as meter:
        for first in range(0, 240, 8):
            batches.consumer.advance(sqs_event(records[first : first + 8]))
    batches.consumer.advance(sqs_event([destination(batches.invoked[-1], {})]))
    assert_joined(batches, 240)
    assert max(call.entries for call in meter.calls if call.operation == "Query") == 3 * 40 // 8


def test_one_whose_outcome_is_folded_already_writes_nothing(resources: Resources) -> None:
    batches = started(resources, fan(40))
    slow, fast = Process(batches.resources), batches.process
    messages = {"Records": [record for _ in range(4) for record in take(batches, 10)["Records"]]}
    race(slow, lambda: fast.consumer.advance(messages))
    with metered() as meter:
        assert slow.consumer.advance(messages) == {"batchItemFailures": []}
    assert meter.writes_of("R#", "r") == 1 + 1  # of the other run, and the one that was refused then
    assert int(run_item(batches)["v"]["N"]) == 2
    with metered() as meter:
        assert slow.consumer.advance(messages) == {"batchItemFailures": []}
    assert meter.writes_of("R#", "r") == 0


def test_who_folds_takes_along_what_others_wrote_down(resources: Resources) -> None:
    batches = started(resources, fan(40))
    first, second = take(batches, 10), take(batches, 10)
    dying = Process(batches.resources)

    class Died(BaseException):
        pass

    def die() -> None:
        raise Died

    race(dying, die)
    with pytest.raises(Died):
        dying.consumer.advance(first)  # the outcomes are stored, and not folded
    batches.consumer.advance(second)
    batches.drain()
    assert_joined(batches, 40)


# --- outcomes that stay pending --------------------------------------------------------------------------------------


def steps_and_a_time(wait: str) -> Json:
    steps = {**fan(33), "busy": handler_step(timeout="2d", runtime={"type": "docker", "image": "busy"})}
    steps["join"]["after"].append({"step": "$trigger", "wait": wait})
    return steps


def all_but_one(ctx: Json) -> Any:
    return LOST if ctx["step_id"] == "busy" else {"ok": ctx["step_id"]}


def assert_joined_though_one_is_busy(batches: Batches) -> None:
    ((stored, _),) = batches.runs()
    assert [step.status for step in stored.run.steps] == [StepStatus.COMPLETED] * 34 + [StepStatus.RUNNING]
    (joined,) = [payload for payload in batches.invoked if payload["ctx"]["step_id"] == "join"]
    assert joined["steps"] == {f"s{number}": {"ok": f"s{number}"} for number in range(33)}


def waiting_for_time(resources: Resources) -> Batches:
    """33 parallel steps have ended and one has not. A step also waits for a time after the 33. Nothing is folded."""
    batches = started(resources, steps_and_a_time("10m"), all_but_one)
    batches.drain()
    assert int(run_item(batches)["v"]["N"]) == 1
    return batches


def delay_ended(batches: Batches) -> Json:
    run = run_item(batches)["pk"]["S"][2:]
    return sqs_event([{"stepwell": "timer", "run": run, "timer": [int(TimerKind.DELAY), 0, 0], "due": 1}])


def test_what_comes_next_starts_when_its_time_comes_with_all_that_waited(resources: Resources, clock: Any) -> None:
    batches = waiting_for_time(resources)
    clock.shift(601)
    batches.consumer.advance(delay_ended(batches))
    batches.drain()
    assert_joined_though_one_is_busy(batches)
    ((_, attempts),) = batches.runs()
    assert attempts[-1].ended_at - attempts[0].ended_at == 601_000  # with the times at which they ended


@pytest.mark.parametrize("first", ["outcomes", "time"])
def test_outcomes_and_a_timer_at_the_same_moment_start_what_waits_for_both(
    resources: Resources, clock: Any, first: str
) -> None:
    batches = started(resources, steps_and_a_time("10m"), all_but_one)
    outcomes = {"Records": [record for _ in range(4) for record in take(batches, 10)["Records"]]}
    clock.shift(601)
    timer = delay_ended(batches)
    slow, fast = Process(batches.resources), batches.process
    now, meanwhile = (outcomes, timer) if first == "outcomes" else (timer, outcomes)
    race(slow, lambda: fast.consumer.advance(meanwhile))
    assert slow.consumer.advance(now) == {"batchItemFailures": []}
    batches.drain()
    assert_joined_though_one_is_busy(batches)


def test_an_outcome_that_waits_is_shown(resources: Resources, clock: Any) -> None:
    batches = waiting_for_time(resources)
    queries = Queries(batches.resources, batches.session.registry)
    shown = queries.read_run(run_item(batches)["pk"]["S"][2:])
    (listed,) = queries.read_runs().items
    assert shown is not None
    for run_detail in (shown, listed):
        assert [step.status for step in run_detail.run.steps[:33]] == [StepStatus.COMPLETED] * 33
        assert [(row.status, row.output) for row in run_detail.attempts[:1]] == [("completed", b'{"ok":"s0"}')]


def test_what_waits_when_a_run_is_cancelled_has_ended(resources: Resources, clock: Any) -> None:
    batches = waiting_for_time(resources)
    Process(batches.resources).control.cancel(run_item(batches)["pk"]["S"][2:])
    ((stored, attempts),) = batches.runs()
    assert stored.run.status is RunStatus.CANCELLED
    assert [step.status for step in stored.run.steps] == [StepStatus.COMPLETED] * 33 + [StepStatus.CANCELLED] * 2
    assert [attempt.status for attempt in attempts] == ["completed"] * 33 + ["cancelled"]


def test_what_waits_for_a_day_is_not_lost(resources: Resources, clock: Any) -> None:
    batches = started(resources, steps_and_a_time("2d"), all_but_one)
    batches.drain()
    clock.shift(86_400)
    batches.scheduler.sweep(range(8))
    batches.drain()
    ((stored, attempts),) = batches.runs()
    assert stored.run.status is RunStatus.RUNNING
    assert {attempt.status for attempt in attempts} == {"completed"}
    assert len(batches.invoked) == 34


def test_a_decision_waits_for_nobody(resources: Resources, clock: Any) -> None:
    """A decision takes effect at once."""
    asks = {"runtime": {"type": "approval", "message": "Really?"}, "timeout": "5m"}
    batches = started(resources, {"ask": asks, **fan(40)}, lambda ctx: LOST)
    approve = Link(run_item(batches)["pk"]["S"][2:], 0, 1, "approved", now_ms() + 60_000)
    assert batches.control.decide(approve, Outcome(b'{"by":"Ada"}'))


def test_a_rerun_from_a_step_keeps_what_waits(resources: Resources, clock: Any) -> None:
    batches = waiting_for_time(resources)
    process = Process(batches.resources)
    assert process.control.rerun(run_item(batches)["pk"]["S"][2:], Restart("join", {})) is not None
    again = {payload["ctx"]["step_id"]: payload for payload in batches.invoked[-2:]}  # in either order
    assert set(again) == {"busy", "join"}
    assert len(again["join"]["steps"]) == 33


def take(batches: Batches, count: int) -> Json:
    """Messages of the queue `outcomes`, as Lambda receives them."""
    messages = batches.outside.receive_message(
        QueueUrl=batches.resources.outcomes_queue, MaxNumberOfMessages=count, AttributeNames=["All"]
    )["Messages"]
    return {
        "Records": [{"messageId": m["MessageId"], "body": m["Body"], "attributes": m["Attributes"]} for m in messages]
    }


def race(process: Process, meanwhile: Any) -> None:
    """Does something else just before this process commits for the first time."""
    store = process.session.store

    class Late(DynamoBatch):
        def commit(self, transitions: Sequence[Transition]) -> Sequence[RunRecord | NotWritten | None]:
            if "batch" in vars(store):
                del store.batch
                meanwhile()
            return super().commit(transitions)

    store.batch = lambda now: Late(store, now)  # type: ignore[method-assign]


def test_a_repeated_outcome_of_a_wide_run_changes_nothing(resources: Resources) -> None:
    batches = started(resources, fan(40))
    first = batches.invoked[0]
    batches.drain()
    before = run_item(batches)
    batches.put_outcome(destination(first, {"second": True}))
    with metered() as meter:
        batches.drain()
    assert meter.writes_of("R#", "r") == 0
    assert run_item(batches) == before
    assert_joined(batches, 40)


def test_the_first_of_two_outcomes_of_one_attempt_counts_in_a_wide_run_too(resources: Resources) -> None:
    batches = started(resources, fan(40), lambda ctx: LOST)
    for payload in list(batches.invoked):
        batches.put_outcome(destination(payload, {"ok": payload["ctx"]["step_id"]}))
    for payload in list(batches.invoked):
        batches.put_outcome(destination(payload, {"second": True}))
    batches.answer = lambda ctx: {}
    batches.drain()
    assert_joined(batches, 40)


def wide_run(batches: Batches) -> None:
    """A wide run with all parallel steps running, and another function that waits for the end of it."""
    batches.deploy(fan(33))
    batches.deploy({"a": handler_step()}, on="stepwell/run.completed", id="listener")
    batches.send()
    batches.route()


def story(batches: Batches, beginning: Beginning[None] | None = None, crash_at: int | None = None) -> list[Any]:
    """The details of a wide run and of the run that waits for it, and the started attempts.

    The process dies before the request of this number, counted from when all parallel steps run.
    """
    (beginning or Beginning(wide_run)).tell(batches)
    batches.crash_at = crash_at
    batches.drain()
    runs = sorted((run.function, run.run.status, len(attempts)) for run, attempts in batches.runs())
    return [runs, {(item["ctx"]["function_id"], item["ctx"]["step_id"]) for item in batches.invoked}]


def test_a_crash_before_any_request_of_a_wide_run_changes_nothing_in_the_end(
    resources: Resources, new_account: Callable[[], Resources]
) -> None:
    beginning = Beginning(wide_run)
    expected = story(Batches(resources), beginning)
    assert expected[0] == [("f", RunStatus.COMPLETED, 34), ("listener", RunStatus.COMPLETED, 1)]
    for number in itertools.count():
        batches = Batches(new_account())
        assert story(batches, beginning, number) == expected, (
            f"after a crash before request {number} of {batches.requests}"
        )
        if batches.crash_at is not None:  # there are no more requests
            break
        joined = [payload for payload in batches.invoked if payload["ctx"]["step_id"] == "join"]
        assert all(len(payload["steps"]) == 33 for payload in joined)
    assert number >= 25


def test_a_batch_of_a_wide_run_that_was_done_may_come_again(
    resources: Resources, new_account: Callable[[], Resources]
) -> None:
    whole = Batches(resources)
    expected = story(whole)
    for number in range(whole.batches):
        batches = Batches(new_account())
        batches.crash_after = number
        assert story(batches) == expected, f"after batch {number} came twice"


def test_long_outputs_of_a_wide_run_stay_out_of_its_item(resources: Resources) -> None:
    """40 outputs of 256 KB, of which the join gets two."""
    parallel = {f"s{number}": handler_step() for number in range(40)}
    steps = {**parallel, "join": handler_step("s0", "s39", join="all")}
    long = "x" * (256 * 1024 - 100)
    batches = started(resources, steps, lambda ctx: {"text": ctx["step_id"] + long})
    batches.drain(5)  # ten outputs would be too large for a message batch
    ((stored, attempts),) = batches.runs()
    assert stored.run.status is RunStatus.COMPLETED
    assert all(len(attempt.output or b"") > 256_000 for attempt in attempts)
    joined = batches.invoked[-1]
    assert {step: output["text"][:3] for step, output in joined["steps"].items()} == {"s0": "s0x", "s39": "s39"}
    assert item_size(run_item(batches)) < 20_000


@pytest.mark.parametrize("count", [2, 40])
def test_half_a_character_in_an_answer_or_a_request_id_costs_its_attempt_and_no_other(
    resources: Resources, count: int
) -> None:
    batches = started(resources, {f"s{number}": handler_step() for number in range(count)}, lambda ctx: LOST)
    first, second = batches.invoked[:2]
    threw = {"errorType": "Error", "errorMessage": "half: \ud83d"}
    bad = destination(first, threw, "RetriesExhausted", functionError="Unhandled")
    bad["requestContext"]["requestId"] = "\ud83d" * 22
    assert batches.consumer.advance(sqs_event([bad, destination(second, {"ok": 1})])) == {"batchItemFailures": []}
    ((stored, attempts),) = batches.runs()
    assert stored.run.status is RunStatus.FAILED
    assert sorted(attempt.status for attempt in attempts) == ["completed", "failed"]
    assert any(b"half: ?" in (attempt.error or b"") for attempt in attempts)


def test_an_unhandled_failure_ends_a_wide_run_at_once(resources: Resources) -> None:
    def answer(ctx: Json) -> Any:
        return {"status": 400} if ctx["step_id"] == "s7" else {"ok": True}

    batches = started(resources, fan(40), answer)
    batches.drain()
    ((stored, attempts),) = batches.runs()
    assert stored.run.status is RunStatus.FAILED
    assert len(attempts) == 40  # running attempts may end, and are recorded
    assert stored.run.steps[40].status is StepStatus.CANCELLED


# --- after an update -------------------------------------------------------------------------------------------------


def as_of_an_earlier_version(batches: Batches) -> None:
    """Leaves the run in the table as earlier versions of Stepwell wrote it: every run of more than 32 steps was wide,
    and the sort keys of outcomes began with the time.
    """
    table, item = batches.resources.table, run_item(batches)
    del item["w"]
    batches.outside_db.put_item(TableName=table, Item=item)
    for row in outcome_rows(batches):
        key = {"pk": row["pk"], "sk": row["sk"]}
        batches.outside_db.delete_item(TableName=table, Key=key)
        _, _, at, digest = row["sk"]["S"].split("#")
        batches.outside_db.put_item(TableName=table, Item={**row, "sk": {"S": f"o#{at}#{digest}"}})


def outcome_rows(batches: Batches) -> list[Json]:
    condition, values = "pk = :run AND begins_with(sk, :row)", {":run": run_item(batches)["pk"], ":row": {"S": "o#"}}
    found: list[Json] = batches.outside_db.query(
        TableName=batches.resources.table, KeyConditionExpression=condition, ExpressionAttributeValues=values
    )["Items"]
    return found


def test_outcomes_that_wait_since_before_an_update_are_folded(resources: Resources, clock: Any) -> None:
    batches = waiting_for_time(resources)
    as_of_an_earlier_version(batches)
    batches.start()
    clock.shift(601)
    batches.consumer.advance(delay_ended(batches))
    batches.drain()
    assert_joined_though_one_is_busy(batches)
    ((_, attempts),) = batches.runs()
    assert attempts[-1].ended_at - attempts[0].ended_at == 601_000


def two_of_many(resources: Resources) -> Batches:
    """A run with two running steps and thirty-two pending outcomes."""
    steps = {"a": handler_step(), "b": handler_step(), **chain(32)}
    steps["s0"]["after"] = [{"step": "a"}, {"step": "b"}]
    return started(resources, steps, lambda ctx: LOST if ctx["step_id"] in "ab" else {})


def end_the_other(batches: Batches) -> None:
    (other,) = [payload for payload in batches.invoked if payload["ctx"]["step_id"] == "b"]
    batches.consumer.advance(sqs_event([destination(other, {})]))


def write_down(batches: Batches, number: int) -> None:
    """The outcome of a step, left pending by an earlier version; the message is gone."""
    run_id = run_item(batches)["pk"]["S"][2:]
    ended = Ended(AttemptEnded(number, 1, Outcome(b'{"early":true}')), None)
    for row in outcome_items(run_id, 1, [ended], now_ms(), now_ms() // 1000 + 1000):
        batches.outside_db.put_item(TableName=batches.resources.table, Item=row)


def test_a_run_that_an_earlier_version_took_to_be_wide_goes_on(resources: Resources) -> None:
    batches = two_of_many(resources)
    write_down(batches, 0)
    as_of_an_earlier_version(batches)
    batches.start()
    end_the_other(batches)
    batches.drain()
    ((stored, attempts),) = batches.runs()
    assert stored.run.status is RunStatus.COMPLETED
    assert attempts[0].output == b'{"early":true}'


def test_what_an_earlier_version_left_to_wait_while_it_was_updated_is_found_by_the_sweeper(
    resources: Resources, clock: Any
) -> None:
    batches = two_of_many(resources)
    write_down(batches, 0)  # although this version has written the run before
    end_the_other(batches)
    clock.shift(2 * 86_400)
    batches.scheduler.sweep(range(8))
    batches.drain()
    ((stored, attempts),) = batches.runs()
    assert stored.run.status is RunStatus.COMPLETED
    assert not [attempt for attempt in attempts if attempt.status == "lost"]

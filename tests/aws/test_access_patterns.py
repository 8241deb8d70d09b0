"""The cost of each access pattern of the table in a warm process: counted requests and capacity units."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
import time_machine

from stepwell.aws.api.approvals import AwsApprovals
from stepwell.aws.api.queries import Queries
from stepwell.aws.engine import stored_events
from stepwell.aws.engine.session import now_ms
from stepwell.aws.resources import Resources
from stepwell.aws.table.keys import (
    Item,
    event_entry,
    event_entry_partitions,
    event_key,
    function_key,
    starts_key,
    wait_key,
)
from stepwell.aws.table.positions import next_position
from stepwell.core.definition.definition import parse_definition
from stepwell.core.plan import RateLimit
from stepwell.core.run.messages import Outcome
from stepwell.core.run.run import RunStatus
from stepwell.testing.account.meter import Meter, metered
from stepwell.testing.batches import Batches, Json, handler_step

NOW = datetime(2026, 6, 1, 10, 0, 30, tzinfo=UTC)
MS = int(NOW.timestamp() * 1000)
PAID = {"event": "paid", "match": "async.data.order == event.data.order", "ttl": "1h"}
WAITS = {"a": handler_step(), "b": handler_step({"step": "a", "async": PAID})}


@pytest.fixture
def batches(resources: Resources) -> Batches:
    batches = Batches(resources)
    batches.deploy({"a": handler_step(), "b": handler_step("a"), "c": handler_step("b")})
    warm(batches)
    return batches


def warm(batches: Batches, name: str = "go", data: Json | None = None) -> None:
    """Warms the process up, so that requests that are made only once do not count."""
    batches.send(name, data)
    batches.drain()


def cost(meter: Meter) -> tuple[dict[str, int], float, float]:
    """The number of requests, write units and read units."""
    return dict(meter.operations()), meter.write_units, meter.read_units


def of_event(batches: Batches, name: str = "go", data: Json | None = None, **more: Any) -> Meter:
    """The requests of route for one event."""
    batches.send(name, data, **more)
    with metered() as meter:
        assert batches.route()
    return meter


def of_outcome(batches: Batches) -> Meter:
    """The requests of advance for one message."""
    with metered() as meter:
        assert batches.advance(1)
    return meter


def put(batches: Batches, items: list[Item]) -> None:
    for first in range(0, len(items), 25):
        requests = [{"PutRequest": {"Item": item}} for item in items[first : first + 25]]
        batches.outside_db.batch_write_item(RequestItems={batches.resources.table: requests})


def of_call(do: Callable[[], Any]) -> Meter:
    with metered() as meter:
        do()
    return meter


# --- events ----------------------------------------------------------------------------------------------------------


def test_an_event_that_matches_nothing_is_one_item_and_a_share_of_two_rows(batches: Batches) -> None:
    assert cost(of_event(batches, "nobody/cares")) == ({"dynamodb.PutItem": 1, "dynamodb.BatchWriteItem": 1}, 3, 0)
    for number in range(10):
        batches.send("nobody/cares", {"n": number})
    with metered() as meter:
        batches.route()
    assert cost(meter) == ({"dynamodb.PutItem": 10, "dynamodb.BatchWriteItem": 1}, 12, 0)


def test_a_duplicate_of_an_event_costs_the_write_that_is_refused(batches: Batches) -> None:
    of_event(batches, "nobody/cares", id="one")
    assert cost(of_event(batches, "nobody/cares", id="one")) == ({"dynamodb.PutItem": 1}, 1, 0)


def test_an_event_under_a_wait_key_is_one_more_item_and_one_look(batches: Batches) -> None:
    batches.deploy(WAITS, "order")
    warm(batches, "paid", {"order": 1})
    meter = of_event(batches, "paid", {"order": 2})
    assert cost(meter) == ({"dynamodb.PutItem": 2, "dynamodb.Query": 1, "dynamodb.BatchWriteItem": 1}, 4, 1)
    assert meter.writes_of("K#") == 1


def test_a_large_event_is_written_once_and_not_into_its_run(batches: Batches) -> None:
    meter = of_event(batches, data={"text": "x" * 10_000})
    assert meter.write_units == 10 + 2 + 3  # the event, the run with its entry in the index, the lists
    batches.drain()


# --- runs ------------------------------------------------------------------------------------------------------------


def test_a_runs_start_is_one_item_with_its_entry_in_the_index(batches: Batches) -> None:
    meter = of_event(batches)
    assert cost(meter) == ({"dynamodb.PutItem": 2, "dynamodb.BatchWriteItem": 1, "lambda.Invoke": 1}, 1 + 2 + 3, 0)


def test_a_value_of_idempotency_is_one_more_write(resources: Resources) -> None:
    batches = Batches(resources)
    batches.deploy({"a": handler_step()}, idempotency="event.data.order")
    warm(batches, data={"order": 0})
    first = of_event(batches, data={"order": 7})
    assert cost(first) == ({"dynamodb.PutItem": 3, "dynamodb.BatchWriteItem": 1, "lambda.Invoke": 1}, 1 + 1 + 2 + 3, 0)
    assert first.writes_of("I#") == 1
    second = of_event(batches, data={"order": 7})
    # The event, the claim that is refused, and the event again with the reason.
    assert cost(second) == ({"dynamodb.PutItem": 3, "dynamodb.GetItem": 1, "dynamodb.BatchWriteItem": 1}, 3 + 2, 1)


@pytest.mark.parametrize(
    ("timeouts", "more"),
    [
        ({"start": "1h"}, {}),
        ({"start": "10m"}, {}),
        ({"finish": "10m"}, {"sqs.SendMessageBatch": 1}),
        ({"finish": "1h"}, {"dynamodb.PutItem": 3}),
    ],
)
def test_a_timeout_of_a_run_costs_one_message_or_one_write_when_the_run_starts(
    resources: Resources, timeouts: Json, more: dict[str, int]
) -> None:
    batches = Batches(resources)
    batches.deploy({"a": handler_step()}, timeouts=timeouts)
    warm(batches)
    requests = {"dynamodb.PutItem": 2, "dynamodb.BatchWriteItem": 1, "lambda.Invoke": 1}
    assert of_event(batches).operations() == {**requests, **more}


def test_a_step_that_sends_an_event_is_two_writes_of_its_run_and_an_event(resources: Resources) -> None:
    batches = Batches(resources)
    tell: Json = {"runtime": {"type": "emit", "event": "told"}}
    batches.deploy({"tell": tell})
    warm(batches)
    requests = {"dynamodb.PutItem": 3, "dynamodb.BatchWriteItem": 1, "events.PutEvents": 2}
    assert of_event(batches).operations() == requests


def test_a_start_that_counts_for_a_rate_limit_is_one_more_read_and_write(resources: Resources) -> None:
    batches = Batches(resources)
    batches.deploy({"a": handler_step()}, rate_limit={"limit": 60, "period": "1h", "key": "event.data.customer"})
    warm(batches, data={"customer": 0})
    first = of_event(batches, data={"customer": 7})
    requests = {"dynamodb.PutItem": 3, "dynamodb.GetItem": 1, "dynamodb.BatchWriteItem": 1, "lambda.Invoke": 1}
    assert cost(first) == (requests, 1 + 1 + 2 + 3, 1)
    assert first.writes_of("N#") == 1
    limits, writes, reads = batches.session.store.checks.rate_limits, 0.0, 0.0
    limit = RateLimit(60, 3_600_000, "event.data.customer")
    for number in range(200):  # the window slides: more than 60 are within an hour before each start
        with metered() as meter:
            assert limits.claim("f", b"k", limit, f"r{number}", MS + number * 60_000, again=False) is None
        writes, reads = writes + meter.write_units, reads + meter.read_units
    assert writes == 200 + 9, "every twentieth start writes a chunk"
    assert reads == 200 + 7, "and reads an older one"


def test_an_event_beyond_a_rate_limit_is_two_reads_and_its_reason(resources: Resources) -> None:
    batches = Batches(resources)
    batches.deploy({"a": handler_step()}, rate_limit={"limit": 1, "period": "1h"})
    warm(batches)
    # The event, the starts, the event again to add the reason.
    assert cost(of_event(batches)) == (
        {"dynamodb.PutItem": 2, "dynamodb.GetItem": 2, "dynamodb.BatchWriteItem": 1}, 2 + 2, 2,
    )  # fmt: skip


def test_a_key_of_singleton_is_one_more_write_and_a_read_of_the_key_and_of_its_last_run(resources: Resources) -> None:
    batches = Batches(resources)
    batches.deploy({"a": handler_step()}, singleton={"mode": "skip", "key": "event.data.account"})
    warm(batches, data={"account": 0})
    requests = {"dynamodb.PutItem": 3, "dynamodb.GetItem": 1, "dynamodb.BatchWriteItem": 1, "lambda.Invoke": 1}
    assert cost(of_event(batches, data={"account": 7})) == (requests, 1 + 1 + 2 + 3, 1), "a new key"
    # The event; the key, its run, the event again to add the reason.
    skipped = {"dynamodb.PutItem": 2, "dynamodb.GetItem": 2, "dynamodb.BatchGetItem": 1, "dynamodb.BatchWriteItem": 1}
    assert cost(of_event(batches, data={"account": 7})) == (skipped, 2 + 2, 3)
    batches.drain()
    again = cost(of_event(batches, data={"account": 7}))
    assert again == ({**requests, "dynamodb.BatchGetItem": 1}, 1 + 1 + 2 + 3, 2)


def test_one_transition_is_one_read_and_one_conditional_write(batches: Batches) -> None:
    of_event(batches)
    expected = {"dynamodb.BatchGetItem": 1, "dynamodb.PutItem": 1, "lambda.Invoke": 1}
    assert cost(of_outcome(batches)) == (expected, 1, 1)
    assert cost(of_outcome(batches)) == (expected, 1, 1)


def test_the_end_of_a_run_takes_its_entry_out_of_the_index(batches: Batches) -> None:
    of_event(batches)
    of_outcome(batches)
    of_outcome(batches)
    expected = {"dynamodb.BatchGetItem": 1, "dynamodb.PutItem": 1, "events.PutEvents": 1}
    assert cost(of_outcome(batches)) == (expected, 2, 1)
    assert not batches.advance()


def test_ten_outcomes_are_read_with_one_request(batches: Batches) -> None:
    for number in range(10):
        batches.send(data={"n": number})
    batches.route()
    with metered() as meter:
        batches.advance()
    expected = {"dynamodb.BatchGetItem": 1, "dynamodb.PutItem": 10, "lambda.Invoke": 10}
    assert cost(meter) == (expected, 10, 10)


def test_no_more_than_three_requests_wait_for_one_another_before_a_step_starts(batches: Batches) -> None:
    batches.send()
    with metered() as meter:
        batches.route()
    assert meter.sequential("Invoke") <= 3
    with metered() as meter:
        batches.advance()
    assert meter.sequential("Invoke") <= 3


def test_a_repeated_outcome_writes_nothing(batches: Batches) -> None:
    of_event(batches)
    (message,) = batches.outside.receive_message(QueueUrl=batches.resources.outcomes_queue)["Messages"]
    for _ in range(2):
        batches.outside.send_message(QueueUrl=batches.resources.outcomes_queue, MessageBody=message["Body"])
    assert of_outcome(batches).write_units == 1
    assert cost(of_outcome(batches)) == ({"dynamodb.BatchGetItem": 1}, 0, 1)


def test_a_long_output_is_written_once(batches: Batches) -> None:
    batches.answer = lambda ctx: {"text": "x" * 100_000} if ctx["step_id"] == "a" else {}
    of_event(batches)
    long = of_outcome(batches)
    assert (long.writes_of("R#", "r"), long.write_units) == (1, 98 + 1)
    after = of_outcome(batches)
    assert after.write_units == 1
    assert after.read_units == 1 + 25  # the next step gets the output


# --- waits -----------------------------------------------------------------------------------------------------------


def open_waits(batches: Batches, count: int) -> None:
    """Waits with keys that do not match the event, written in the same way as `OpenWait` does."""
    put(
        batches,
        [
            {**wait_key("paid", number.to_bytes(16), f"run{number}", 0, 1), "d": {"N": str(2**45)}, "ttl": {"N": "1"}}
            for number in range(count)
        ],
    )


@pytest.mark.parametrize("others", [1, 100])
def test_a_wait_costs_the_same_however_many_others_are_open(resources: Resources, others: int) -> None:
    batches = Batches(resources)
    batches.deploy(WAITS)
    warm(batches, data={"order": 0})
    warm(batches, "paid", {"order": 0})
    open_waits(batches, others)
    of_event(batches, data={"order": 7})
    opened = of_outcome(batches)
    # The run, the wait and the far timer of the deadline; a query for earlier events.
    assert cost(opened) == ({"dynamodb.BatchGetItem": 1, "dynamodb.PutItem": 3, "dynamodb.Query": 1}, 3, 2)
    found = of_event(batches, "paid", {"order": 7})
    # The event and the entry; the wait and the run; the run; the wait and the timer are deleted with one request.
    requests = {"PutItem": 3, "Query": 1, "BatchGetItem": 2, "BatchWriteItem": 2}
    assert cost(found)[0] == {**{f"dynamodb.{name}": n for name, n in requests.items()}, "lambda.Invoke": 1}
    assert found.write_units == 2 + 1 + 2 + 2  # two rows of lists
    batches.drain()
    assert all(stored.run.status is RunStatus.COMPLETED for stored, _ in batches.runs())


def test_a_rule_of_cancel_is_a_wait_that_is_opened_with_the_run_and_deleted_with_it(resources: Resources) -> None:
    batches = Batches(resources)
    batches.deploy({"a": handler_step()}, cancel=[{"event": "paid", "if": PAID["match"]}])
    warm(batches, data={"order": 0})
    started = of_event(batches, data={"order": 7})
    # The event, the run and the wait; a query for earlier events.
    requests = {"dynamodb.PutItem": 3, "dynamodb.Query": 1, "dynamodb.BatchWriteItem": 1, "lambda.Invoke": 1}
    assert cost(started) == (requests, 1 + 2 + 1 + 3, 1)
    ended = of_outcome(batches)
    requests = {"dynamodb.BatchGetItem": 1, "dynamodb.PutItem": 1, "dynamodb.BatchWriteItem": 1, "events.PutEvents": 1}
    assert cost(ended) == (requests, 2 + 1, 1)


@pytest.mark.parametrize("others", [1, 300])
def test_events_before_a_wait_are_found_by_its_key(resources: Resources, others: int) -> None:
    batches = Batches(resources)
    batches.deploy(WAITS)
    warm(batches, data={"order": 0})
    warm(batches, "paid", {"order": 0})
    of_event(batches, data={"order": 7})
    of_event(batches, "paid", {"order": 7})
    ttl = {"ttl": {"N": "1"}}
    keys = [f"K#{number.to_bytes(16).hex()}" for number in range(others)]
    put(batches, [{**event_entry(key, next_position(MS), f"event{key}"), **ttl} for key in keys])
    meter = of_outcome(batches)
    # The run; one query of the key; the event, which is read twice: to decide, and as the input of the step.
    assert meter.operations()["dynamodb.Query"] == 1
    assert meter.operations()["dynamodb.BatchGetItem"] <= 3
    assert meter.operations()["lambda.Invoke"] == 1
    assert meter.read_units <= 4


def test_a_wait_without_a_key_looks_into_the_partitions_of_its_events_name(resources: Resources) -> None:
    batches = Batches(resources)
    batches.deploy({"a": handler_step({"step": "$trigger", "async": {"event": "paid", "ttl": "10m"}})})
    warm(batches)
    warm(batches, "paid")
    opened = of_event(batches)
    assert opened.operations()["dynamodb.Query"] == 16
    assert (opened.writes_of("W#"), opened.writes_of("T#")) == (1, 0)
    found = of_event(batches, "paid")
    assert found.operations()["dynamodb.Query"] == 8
    assert len(batches.invoked) == 2


def test_a_wait_without_a_key_reads_no_further_than_the_first_event_that_it_wants(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finds one of 1,000 events of the name, which are spread over 16 partitions, in the order of acceptance."""
    monkeypatch.setattr(stored_events, "_ENTRIES", 5)
    batches = Batches(resources)
    wanted = {"event": "paid", "match": "async.data.sum > 20", "ttl": "10m"}
    batches.deploy({"a": handler_step(), "b": handler_step({"step": "a", "async": wanted})})
    warm(batches)
    run = of_event(batches)
    assert run.operations()["lambda.Invoke"] == 1
    first = next_position(now_ms())
    shards = event_entry_partitions("paid", None)
    events = [f"paid-{number:04}" for number in range(1000)]
    rows = [event_entry(shards[number % 16], first + number, name) for number, name in enumerate(events)]
    bodies = [{"name": "paid", "data": {"sum": n}, "user": {}, "id": name} for n, name in enumerate(events[:40])]
    stored = [
        {**event_key(body["id"]), "p": {"N": str(first + n)}, "b": {"B": orjson.dumps({**body, "ts": MS, "v": None})}}
        for n, body in enumerate(bodies)
    ]
    put(batches, [*rows, *stored])
    meter = of_outcome(batches)
    assert batches.invoked[-1]["async"]["data"] == {"sum": 21}
    looked = [call.entries for call in meter.calls if call.operation == "Query"]
    assert looked == [5] * 32  # two pages of each partition: 110 events are read, seven from each


def test_who_wakes_many_runs_does_so_a_hundred_at_a_time(resources: Resources) -> None:
    batches = Batches(resources)
    batches.deploy(WAITS)
    for number in range(120):
        batches.send(data={"order": 7}, id=f"order-{number}")
    batches.drain()
    before = len(batches.invoked)
    woke = of_event(batches, "paid", {"order": 7})
    assert (len(batches.invoked) - before, woke.entries("SendMessageBatch")) == (100, 1)
    of_outcome(batches)
    batches.drain()
    assert len(batches.invoked) - before == 120


# --- timers ----------------------------------------------------------------------------------------------------------


def test_a_near_timer_is_a_message_and_no_item(resources: Resources) -> None:
    batches = Batches(resources)
    batches.deploy({"a": handler_step({"step": "$trigger", "wait": "10m"})})
    with time_machine.travel(NOW, tick=False) as clock:
        of_event(batches)
        clock.shift(601)
        batches.drain()
        meter = of_event(batches)
        assert meter.writes_of("T#") == 0
        assert meter.operations()["sqs.SendMessageBatch"] == 1
        clock.shift(601)
        fired = of_outcome(batches)
        assert cost(fired) == ({"dynamodb.BatchGetItem": 1, "dynamodb.PutItem": 1, "lambda.Invoke": 1}, 1, 1)


def test_a_far_timer_is_an_item_that_is_written_sent_and_deleted_once(resources: Resources) -> None:
    batches = Batches(resources)
    batches.deploy({"a": handler_step({"step": "$trigger", "wait": "3d"})})
    with time_machine.travel(NOW, tick=False) as clock:
        meter = of_event(batches)
        assert (meter.writes_of("T#"), meter.count("sqs")) == (1, 0)
        clock.shift(3 * 86_400 - 60)
        nothing = {"dynamodb.GetItem": 1, "dynamodb.Query": 8}
        sent = of_call(lambda: batches.scheduler.far_timers.move(now_ms(), now_ms() + 1))
        assert cost(sent) == ({**nothing, "sqs.SendMessageBatch": 1, "dynamodb.PutItem": 1}, 1, 1 + 8 / 2)
        again = of_call(lambda: batches.scheduler.far_timers.move(now_ms(), now_ms() + 1))
        assert cost(again) == (nothing, 0, 1 + 8 / 2)
        clock.shift(61)
        fired = of_outcome(batches)
        assert (len(batches.invoked), fired.operations()["dynamodb.BatchWriteItem"]) == (1, 1)
        written = [call.write_units for call in fired.calls if call.write_units and call.key != "META"]
        assert written == [1, 1, 1]  # a watch, because the run is old; the run; the timer is deleted


def test_an_approval_is_an_item_more_than_a_far_timer_for_as_long_as_it_is_open(resources: Resources) -> None:
    batches = Batches(resources)
    asks = {"runtime": {"type": "approval", "message": "{{ data.n }}?"}, "after": [{"step": "a"}]}
    batches.deploy({"a": handler_step(), "ask": asks})
    warm(batches)
    batches.send(data={"n": 1})
    assert batches.route()
    opened = of_outcome(batches)  # the run, the timer, the item that lists it, and the engine's event about it
    expected = {"dynamodb.BatchGetItem": 1, "dynamodb.PutItem": 3, "events.PutEvents": 1}
    assert {name: count for name, count in dict(opened.operations()).items() if name in expected} == expected
    assert opened.write_units == 4
    api = AwsApprovals(batches.resources, Queries(batches.resources, batches.session.registry), batches.control.decide)
    run = api.read_asking(before=None, limit=1).items[0]
    link = api.links().read(api.links().of(run.plan, run.run, 1)[0].rpartition("/")[2])
    assert link is not None
    decided = of_call(lambda: api.decide(link, Outcome(output=b"{}")))
    requests = {"dynamodb.BatchGetItem": 1, "dynamodb.PutItem": 1, "dynamodb.BatchWriteItem": 1, "events.PutEvents": 1}
    requests["sqs.SendMessageBatch"] = 1  # a message that completes the end of the run if this process dies
    assert cost(decided) == (requests, 5, 1)


def test_cron_triggers_cost_one_look_a_minute_and_three_writes_a_tick(resources: Resources) -> None:
    batches = Batches(resources)
    with time_machine.travel(NOW, tick=False) as clock:
        batches.deploy({"a": handler_step()}, triggers=[{"event": "go"}, {"cron": "0 * * * *"}])
        warm(batches)
        batches.invoked.clear()
        idle = of_call(batches.scheduler.tick)
        assert idle.write_units == 0
        # Far timers, cron triggers, young runs (running, and failed with running attempts), watches of older runs;
        # limits for which starts wait; the cursor of far timers, twice, and the cursor of the sweep.
        assert idle.operations() == {"dynamodb.Query": 8 + 1 + 2 + 1 + 1, "dynamodb.GetItem": 3}
        clock.shift(59 * 60)
        due = of_call(batches.scheduler.tick)
        assert (due.operations()["dynamodb.UpdateItem"], due.entries("SendMessageBatch")) == (1, 1)
        clock.shift(60)
        tick = of_outcome(batches)
        assert tick.operations()["dynamodb.PutItem"] == 2  # the event and the run
        assert len(batches.invoked) == 1


# --- replays ---------------------------------------------------------------------------------------------------------


def test_a_replay_of_a_stored_event_is_its_run_and_how_it_is_found(batches: Batches) -> None:
    events = [batches.send(data={"n": n}) for n in range(10)]
    batches.drain()
    meter = of_call(lambda: batches.control.replay("f", 1, events, "r1"))
    # The runs with their index entries, an item beside each event, and rows of the lists of all, f and r1.
    requests = {"dynamodb.BatchGetItem": 2, "dynamodb.PutItem": 10, "dynamodb.BatchWriteItem": 2, "lambda.Invoke": 10}
    assert dict(meter.operations()) == requests
    assert meter.write_units == 10 * (2 + 1) + 3
    again = of_call(lambda: batches.control.replay("f", 1, events, "r1"))
    assert (again.operations()["dynamodb.PutItem"], again.operations()["lambda.Invoke"]) == (0, 0)


# --- what must not affect the cost -----------------------------------------------------------------------------------


def test_one_and_a_thousand_functions_cost_the_same_per_event(resources: Resources) -> None:
    batches = Batches(resources)
    batches.deploy({"a": handler_step()})
    warm(batches)
    one = of_event(batches)
    batches.drain()
    register_many(batches, 999)
    warm(batches)
    assert len(batches.session.registry.catalog().live) == 1000
    assert cost(of_event(batches)) == cost(one)


def register_many(batches: Batches, count: int) -> None:
    """Writes start items as so many pushes would, with only one function that is really pushed."""
    batches.deploy({"a": handler_step()}, "other", "f0")
    item = batches.outside_db.get_item(TableName=batches.resources.table, Key=function_key("f0"))["Item"]
    starts = batches.outside_db.get_item(TableName=batches.resources.table, Key=starts_key("f0"))["Item"]
    rows = []
    for number in range(1, count):
        raw = {"id": f"f{number}", "triggers": [{"event": f"other/{number}"}], "steps": {"a": handler_step()}}
        definition = zlib.compress(orjson.dumps(parse_definition(raw).normalised()))
        rows.append({**item, **function_key(f"f{number}"), "d": {"B": definition}})
        triggers = {"1": [[f"other/{number}"]]}
        rows.append({**starts, **starts_key(f"f{number}"), "t": {"B": orjson.dumps(triggers)}})
    put(batches, rows)
    batches.start()


def test_an_event_costs_the_same_with_thousands_of_open_waits(resources: Resources) -> None:
    batches = Batches(resources)
    batches.deploy(WAITS)
    warm(batches, "paid", {"order": 0})
    before = of_event(batches, "paid", {"order": 1})
    open_waits(batches, 2000)
    assert cost(of_event(batches, "paid", {"order": 2})) == cost(before)


def test_what_a_process_does_once_is_a_handful_of_reads(batches: Batches) -> None:
    batches.start()
    first = of_event(batches)
    # The state of functions and the start items; the start of lists; the signing keys.
    assert first.read_units <= 6
    batches.start()
    advanced = of_outcome(batches)
    assert advanced.read_units <= 1 + 3

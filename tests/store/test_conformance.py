"""What the engine requires of every store: the rules of `platform.Batch`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from stepwell.core.events.events import Event, event_from
from stepwell.core.plan import Plan
from stepwell.core.run.messages import (
    AttemptEnded,
    CancelRequested,
    CarriedOver,
    Error,
    EventArrived,
    Fact,
    Outcome,
    RetryDue,
    RunResumed,
    RunStarted,
)
from stepwell.core.run.run import RunStatus, new_run
from stepwell.engine.fold import fold
from stepwell.platform import Accepted, Batch, FreeSlots, NewEvent, RunFact, RunRecord
from stepwell.start_checks import Holder
from tests.store.stores import NOW, StoreUnderTest

FREE = FreeSlots(1000, 1000)
DAY = 86_400_000
CODE = {"path": "file://.", "runtime": {"type": "lambda", "handler": "app.f"}}
FIRST = {**CODE, "after": [{"step": "$trigger"}]}
BY_KEY = {"step": "$trigger", "async": {"event": "paid", "ttl": "1h", "match": "async.data.n == event.data.n"}}
BY_NAME = {"step": "$trigger", "async": {"event": "paid", "ttl": "1h", "match": "async.data.n > event.data.n"}}


def definition(id: str = "f", **steps: Any) -> dict[str, Any]:
    return {"id": id, "triggers": [{"event": "go"}], "steps": steps or {"a": FIRST}}


def event_of(name: str = "go", id: str = "e", **fields: Any) -> Event:
    return event_from({"name": name, "id": id, "ts": NOW, **fields})


def new(batch: Batch, event: Event, **fields: Any) -> NewEvent:
    return NewEvent(event, batch.catalog().keys(event), (), (), **fields)


def put(store: StoreUnderTest, *events: Event, now: int = NOW, **fields: Any) -> list[Event]:
    """Accepts events in a batch of their own. Returns them with their positions."""
    batch = store.begin(now)
    accepted = batch.put_events([new(batch, event, **fields) for event in events])
    store.end(batch)
    found = []
    for event, answer in zip(events, accepted, strict=True):
        assert isinstance(answer, Accepted)
        found.append(event.at_position(answer.position))
    return found


def start(batch: Batch, plan: Plan, event: Event, run_id: str = "a" * 26, **fields: Any) -> RunRecord:
    """A new run, committed as it starts."""
    batch.add(RunRecord(new_run(run_id, plan, batch.now), plan, event, event.position, **fields))
    return commit(batch, run_id, RunStarted())


def commit(batch: Batch, run_id: str, *facts: Fact) -> RunRecord:
    """Folds facts into a run and commits the record. Returns the record."""
    record = batch.load([run_id])[run_id]
    transition = fold(record, [RunFact(run_id, fact) for fact in facts], batch.now, FREE)
    assert batch.commit([transition]) == [None]
    return transition.record


def essence(record: RunRecord) -> tuple[Any, ...]:
    """The part of a run that every store must preserve."""
    return (
        record.run,
        record.plan.function_id,
        record.plan.version,
        record.event.id,
        record.event.position,
        record.after,
        record.rerun_of,
        record.replay,
        {step: record.outputs[step] for step in record.outputs},
        {step: orjson.loads(record.errors[step]) for step in record.errors},
    )


def ended(step: int, output: Any) -> AttemptEnded:
    return AttemptEnded(step, 1, Outcome(orjson.dumps(output)))


def reloaded(store: StoreUnderTest, run_id: str = "a" * 26) -> RunRecord:
    store.reopen()
    batch = store.begin(NOW + 1)
    record = batch.load([run_id])[run_id]
    essence(record)  # loads what is read lazily
    store.end(batch)
    return record


# --- events ----------------------------------------------------------------------------------------------------------


def test_positions_grow_in_the_order_of_events(store: StoreUnderTest) -> None:
    events = put(store, *(event_of(id=f"e{n}") for n in range(5)))
    later = put(store, event_of(id="later"), now=NOW + 1)
    positions = [event.position for event in (*events, *later)]
    assert positions == sorted(set(positions))
    batch = store.begin(NOW + 2)
    assert batch.position() >= positions[-1]
    store.end(batch)


def test_a_known_event_is_a_duplicate(store: StoreUnderTest) -> None:
    (event,) = put(store, event_of())
    batch = store.begin()
    twice = [new(batch, event_of()), new(batch, event_of(id="other")), new(batch, event_of(id="other"))]
    answers = batch.put_events(twice)
    assert [isinstance(answer, Accepted) for answer in answers] == [False, True, False]
    assert batch.events(["e"])["e"].position == event.position
    store.end(batch)


def test_events_are_read_as_they_were_accepted(store: StoreUnderTest) -> None:
    (event,) = put(store, event_of(data={"n": [1, "é", None]}, user={"id": "ada"}, v="2"))
    store.reopen()
    batch = store.begin()
    found = batch.events(["unknown", "e"])
    assert list(found) == ["e"]
    assert (found["e"].position, found["e"].as_json()) == (event.position, event.as_json())
    store.end(batch)


def found(batch: Batch, name: str, key: bytes | None, after: int, before: int) -> list[str]:
    return [event.id for event in batch.find_events(name, key, after, before)]


@pytest.mark.parametrize("edge", [BY_KEY, BY_NAME])
def test_events_are_found_by_name_or_key_after_a_position_and_before_a_time(
    store: StoreUnderTest, edge: dict[str, Any]
) -> None:
    store.deploy(definition(a={**CODE, "after": [edge]}))
    first, second = put(store, event_of("paid", "p1", data={"n": 1}), event_of("paid", "p2", data={"n": 1}))
    put(store, event_of("paid", "other", data={"n": 2}), event_of("go", "go"), now=NOW + 1)
    put(store, event_of("paid", "p3", data={"n": 1}), now=NOW + 10)
    batch = store.begin(NOW + 20)
    keys = batch.catalog().keys(first)
    key = keys[0] if edge is BY_KEY else None
    others = [] if edge is BY_KEY else ["other"]
    assert found(batch, "paid", key, 0, NOW + 11) == ["p1", "p2", *others, "p3"]
    assert found(batch, "paid", key, first.position, NOW + 11) == ["p2", *others, "p3"]
    assert found(batch, "paid", key, second.position, NOW + 10) == others, "the time is exclusive"
    assert found(batch, "unknown", key and b"x", 0, NOW + 11) == []
    store.end(batch)


def test_a_replayed_event_satisfies_no_wait(store: StoreUnderTest) -> None:
    store.deploy(definition(a={**CODE, "after": [BY_NAME]}))
    batch = store.begin()
    batch.put_events([NewEvent(event_of("paid", "p"), (), (), (), replay="r")])
    assert found(batch, "paid", None, 0, NOW + 1) == []
    store.end(batch)


# --- runs ------------------------------------------------------------------------------------------------------------


def test_a_run_is_visible_to_its_batch_at_once_and_to_others_after_the_commit(store: StoreUnderTest) -> None:
    plan = store.deploy(definition())
    (event,) = put(store, event_of())
    batch = store.begin()
    assert batch.load(["a" * 26]) == {}
    record = start(batch, plan, event)
    assert essence(batch.load(["a" * 26])["a" * 26]) == essence(record)
    store.end(batch)
    assert essence(reloaded(store)) == essence(record)


def test_the_origin_of_a_run_is_stored(store: StoreUnderTest) -> None:
    plan = store.deploy(definition())
    (event,) = put(store, event_of())
    batch = store.begin()
    record = start(batch, plan, event, rerun_of="b" * 26, replay="r")
    store.end(batch)
    assert essence(reloaded(store)) == essence(record)


@pytest.mark.parametrize("size", [0, 299, 301, 3000, 250_000])
def test_results_of_any_length_are_read_as_written(store: StoreUnderTest, size: int) -> None:
    steps = {"a": FIRST, "b": {**CODE, "after": [{"step": "a"}], "retries": {"attempts": 1}}}
    plan = store.deploy(definition(**steps))
    (event,) = put(store, event_of())
    batch = store.begin()
    start(batch, plan, event)
    commit(batch, "a" * 26, ended(0, "x" * size))
    store.end(batch)
    store.reopen()
    batch = store.begin(NOW + 1)
    failed = AttemptEnded(1, 1, Outcome(error=Error("exit", "y" * size), retryable=False))
    record = commit(batch, "a" * 26, failed)
    store.end(batch)
    assert record.run.status is RunStatus.FAILED
    assert record.outputs[0] == orjson.dumps("x" * size)
    assert essence(reloaded(store)) == essence(record)


def test_a_long_run_is_read_as_it_was_written_after_each_change(store: StoreUnderTest) -> None:
    steps = {f"s{n}": {**CODE, "after": [{"step": f"s{n - 1}" if n else "$trigger"}]} for n in range(140)}
    plan = store.deploy(definition(**steps))
    (event,) = put(store, event_of())
    batch = store.begin()
    record = start(batch, plan, event)
    for step in range(45):
        record = commit(batch, "a" * 26, ended(step, {"n": step}))
    store.end(batch)
    assert essence(reloaded(store)) == essence(record)


def test_only_the_last_result_of_a_retried_step_is_read(store: StoreUnderTest) -> None:
    plan = store.deploy(definition(a={**FIRST, "retries": {"attempts": 2}}, b={**FIRST, "retries": {"attempts": 1}}))
    (event,) = put(store, event_of())
    batch = store.begin()
    start(batch, plan, event)
    failed = Outcome(error=Error("exit", "exit code 1", output=b'{"x":1}'))
    commit(batch, "a" * 26, AttemptEnded(0, 1, failed), AttemptEnded(1, 1, failed))
    store.end(batch)
    record = reloaded(store)
    assert (dict(record.outputs), dict(record.errors)) == ({}, {}), "the steps are retried"
    batch = store.begin(NOW + 1)
    commit(batch, "a" * 26, RetryDue(0, 1), RetryDue(1, 1))
    last = Outcome(error=Error("timeout", "too late", status=500))
    record = commit(batch, "a" * 26, AttemptEnded(0, 2, Outcome(b'"done"')), AttemptEnded(1, 2, last))
    store.end(batch)
    assert record.outputs == {0: b'"done"'}
    assert essence(reloaded(store)) == essence(record)
    assert orjson.loads(record.errors[1])["kind"] == "timeout"


def test_results_taken_over_from_an_earlier_run_are_read(store: StoreUnderTest) -> None:
    steps = {"a": FIRST, "b": {**CODE, "after": [{"step": "a"}]}, "c": {**CODE, "after": [{"step": "b"}]}}
    plan = store.deploy(definition(**steps))
    (event,) = put(store, event_of())
    batch = store.begin()
    batch.add(RunRecord(new_run("a" * 26, plan, batch.now), plan, event, event.position + 7, rerun_of="b" * 26))
    resumed = RunResumed(2, (CarriedOver(0, Outcome(b"1")), CarriedOver(1, Outcome(b"2"))), (0, 1, 2), ())
    record = commit(batch, "a" * 26, resumed)
    store.end(batch)
    assert record.outputs == {0: b"1", 1: b"2"}
    assert record.after == event.position + 7
    assert essence(reloaded(store)) == essence(record)


def test_each_run_of_a_batch_is_read_as_it_was_written(store: StoreUnderTest) -> None:
    plan, other = store.deploy(definition()), store.deploy(definition("g"))
    events = put(store, event_of(id="e1"), event_of(id="e2", user={"id": "ada"}))
    batch = store.begin()
    ids = [letter * 26 for letter in "abc"]
    records = [start(batch, *item) for item in zip((plan, other, plan), (*events, events[1]), ids, strict=True)]
    assert [essence(batch.load(ids)[run_id]) for run_id in ids] == [essence(record) for record in records]
    records[1] = commit(batch, ids[1], ended(0, "two"))
    store.end(batch)
    store.reopen()
    batch = store.begin(NOW + 1)
    found = batch.load([ids[2], "z" * 26, ids[1], ids[0]])
    assert sorted(found) == ids
    assert [essence(found[run_id]) for run_id in ids] == [essence(record) for record in records]
    store.end(batch)


def test_a_fact_that_changes_nothing_is_committed(store: StoreUnderTest) -> None:
    plan = store.deploy(definition())
    (event,) = put(store, event_of())
    batch = store.begin()
    start(batch, plan, event)
    before = batch.load(["a" * 26])["a" * 26]
    after = commit(batch, "a" * 26, RunStarted())
    assert after.run == before.run
    store.end(batch)


def test_unknown_runs_are_left_out(store: StoreUnderTest) -> None:
    batch = store.begin()
    assert batch.load(["c" * 26]) == {}
    store.end(batch)


# --- waits -----------------------------------------------------------------------------------------------------------


def waits(batch: Batch, event: Event) -> Sequence[tuple[str, int, int]]:
    opened = batch.find_waits(event, batch.catalog().keys(event)).waits
    return [(wait.run_id, wait.pause, wait.deadline) for wait in opened]


@pytest.mark.parametrize("edge", [BY_KEY, BY_NAME])
def test_an_open_wait_is_found_until_it_is_closed(store: StoreUnderTest, edge: dict[str, Any]) -> None:
    plan = store.deploy(definition(a={**CODE, "after": [edge]}))
    (event,) = put(store, event_of(data={"n": 1}))
    paid, other = event_of("paid", "p", data={"n": 1 if edge is BY_KEY else 2}), event_of("other", "o", data={"n": 1})
    batch = store.begin()
    start(batch, plan, event)
    expected = [("a" * 26, 0, NOW + 3_600_000)]
    assert waits(batch, paid) == expected, "also for the batch that opens it"
    store.end(batch)
    store.reopen()
    batch = store.begin()
    assert (waits(batch, paid), waits(batch, other)) == (expected, [])
    commit(batch, "a" * 26, EventArrived(0, "p"))
    store.end(batch)
    batch = store.begin()
    assert waits(batch, paid) == []
    store.end(batch)


@pytest.mark.parametrize("edge", [BY_KEY, BY_NAME])
def test_all_runs_that_wait_for_an_event_are_found_each_with_its_deadline(
    store: StoreUnderTest, edge: dict[str, Any]
) -> None:
    plan = store.deploy(definition(a={**CODE, "after": [edge]}))
    (event,) = put(store, event_of(data={"n": 1}))
    ids = [f"{letter}" * 26 for letter in "abc"]
    for late, run_id in enumerate(ids):
        batch = store.begin(NOW + late)
        start(batch, plan, event, run_id)
        store.end(batch)
    batch = store.begin(NOW + 3)
    paid = event_of("paid", "p", data={"n": 1 if edge is BY_KEY else 2})
    assert sorted(waits(batch, paid)) == [(name, 0, NOW + late + 3_600_000) for late, name in enumerate(ids)]
    commit(batch, ids[1], EventArrived(0, "p"))
    store.end(batch)
    batch = store.begin(NOW + 4)
    assert sorted(name for name, _, _ in waits(batch, paid)) == [ids[0], ids[2]]
    store.end(batch)


def test_a_failed_run_has_no_open_waits(store: StoreUnderTest) -> None:
    plan = store.deploy(definition(a=FIRST, b={**CODE, "after": [BY_NAME]}))
    (event,) = put(store, event_of(data={"n": 1}))
    batch = store.begin()
    start(batch, plan, event)
    paid = event_of("paid", "p", data={"n": 2})
    assert len(waits(batch, paid)) == 1
    error = Error("exit", "exit code 1")
    record = commit(batch, "a" * 26, AttemptEnded(0, 1, Outcome(error=error, retryable=False)))
    store.end(batch)
    assert record.run.status is RunStatus.FAILED
    batch = store.begin()
    assert waits(batch, paid) == []
    store.end(batch)


def test_a_wait_with_another_key_is_not_found(store: StoreUnderTest) -> None:
    plan = store.deploy(definition(a={**CODE, "after": [BY_KEY]}))
    (event,) = put(store, event_of(data={"n": 1}))
    batch = store.begin()
    start(batch, plan, event)
    assert waits(batch, event_of("paid", "p", data={"n": 2})) == []
    store.end(batch)


def test_a_cancelled_run_has_no_open_waits(store: StoreUnderTest) -> None:
    plan = store.deploy(definition(a={**CODE, "after": [BY_NAME]}))
    (event,) = put(store, event_of(data={"n": 1}))
    batch = store.begin()
    start(batch, plan, event)
    store.end(batch)
    batch = store.begin()
    record = commit(batch, "a" * 26, CancelRequested())
    store.end(batch)
    assert record.run.status is RunStatus.CANCELLED
    batch = store.begin()
    assert waits(batch, event_of("paid", "p", data={"n": 2})) == []
    store.end(batch)


# --- idempotency -----------------------------------------------------------------------------------------------------


def claim(store: StoreUnderTest, run_id: str, event: Event, function: str = "f", value: bytes = b"v") -> str:
    batch = store.begin()
    counts = batch.checks.idempotency.claim(function, value, run_id, event.position)
    store.end(batch)
    return counts


def test_the_first_run_for_a_value_counts_for_a_day(store: StoreUnderTest) -> None:
    store.deploy(definition())
    first, second = put(store, event_of(id="e1"), event_of(id="e2"))
    (late,) = put(store, event_of(id="e3"), now=NOW + DAY - 1)
    (next_day,) = put(store, event_of(id="e4"), now=NOW + DAY)
    assert claim(store, "r1", first) == "r1"
    assert claim(store, "r1", first) == "r1", "as after a redelivered message"
    assert claim(store, "r2", second) == "r1"
    assert claim(store, "r3", late) == "r1"
    assert claim(store, "r4", next_day) == "r4"


def take(store: StoreUnderTest, seen: Holder | None, run_id: str, *, function: str = "f", at: int = 0) -> bool:
    plan = store.deploy(definition())
    batch = store.begin()
    new = Holder(run_id, 7, at, replaces=() if seen is None else (seen.run_id,))
    is_taken = batch.checks.singletons.take(function, b"k", seen, new, plan)
    store.end(batch)
    return is_taken


def holder(store: StoreUnderTest, function: str = "f", key: bytes = b"k") -> Holder | None:
    batch = store.begin()
    found = batch.checks.singletons.read(function, key)
    store.end(batch)
    return found


def test_a_key_of_singleton_belongs_to_the_run_that_has_taken_it_last(store: StoreUnderTest) -> None:
    assert holder(store) is None
    assert take(store, None, "r1")
    first = holder(store)
    assert first is not None
    assert (first.run_id, first.position) == ("r1", 7)
    assert take(store, first, "r2", at=5)
    store.reopen()
    second = holder(store)
    assert second is not None
    assert second.run_id == "r2"
    assert (holder(store, function="g"), holder(store, key=b"other")) == (None, None)


def test_values_are_of_one_function(store: StoreUnderTest) -> None:
    (event,) = put(store, event_of())
    assert claim(store, "r1", event) == "r1"
    assert claim(store, "r2", event, function="g") == "r2"
    assert claim(store, "r3", event, value=b"other") == "r3"

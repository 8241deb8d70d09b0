"""A run is checked when a fact of it is overdue, and an idle wait costs nothing."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from stepwell.aws.engine.session import now_ms
from stepwell.aws.engine.sweep import LATE_MS, next_check_at, overdue
from stepwell.aws.engine.watches import KEPT_MS, YOUNG_MS, Watches, due_watches, watch_item
from stepwell.aws.resources import Resources
from stepwell.aws.table.items import put_items, read_item
from stepwell.aws.table.keys import STATUS_SHARDS, shard_of, watch_key
from stepwell.aws.table.run_records import Record, StoredState
from stepwell.core.compile import compile_plan
from stepwell.core.definition.definition import parse_definition
from stepwell.core.events.events import event_from
from stepwell.core.plan import Plan
from stepwell.core.run.messages import AttemptLost, Fact, RunStarted
from stepwell.core.run.run import PauseState, PauseStatus, Run, RunStatus, new_run
from stepwell.testing.account.meter import Meter, metered
from stepwell.testing.batches import LOST, Batches, Crash, Json, handler_step

HOUR_S, DAY_S, MINUTE_MS = 3600, 86_400, 60_000
AGE_MS, SHORT_AGE_MS = 3_600_000, 300_000
WAIT = {"step": "a", "wait": "3d"}
PAID = {"event": "paid", "match": "async.data.order == event.data.order", "ttl": "3d"}


def ticks(batches: Batches, clock: Any, minutes: int) -> Meter:
    """Runs `tick` each minute, and processes the messages that it sends."""
    with metered() as meter:
        for _ in range(minutes):
            batches.scheduler.tick()
            clock.shift(60)
    batches.drain()
    return meter


def later(batches: Batches, clock: Any, minutes: int) -> Meter:
    """Moves time by this many minutes. In the last eight, all shards are swept."""
    clock.shift((minutes - 8) * 60)
    return ticks(batches, clock, 8)


def looks(meter: Meter) -> int:
    """The number of runs that were read."""
    return sum(call.entries for call in meter.calls if call.operation == "BatchGetItem")


def lose_messages(batches: Batches) -> None:
    batches.outside.purge_queue(QueueUrl=batches.resources.outcomes_queue)


# --- the cost of waiting ---------------------------------------------------------------------------------------------

IDLE: dict[str, Json] = {
    "a delay": handler_step(WAIT),
    "a wait for an event": handler_step({"step": "a", "async": PAID}),
    "an approval": {
        "runtime": {"type": "approval", "message": "Really?"},
        "timeout": "3d",
        "after": [{"step": "a"}],
    },
    "a retry": {**handler_step("a"), "retries": {"attempts": 1, "backoff": {"initial": "3d", "max": "3d"}}},
}


@pytest.mark.parametrize("kind", IDLE)
def test_a_day_of_an_idle_wait_takes_one_look_and_writes_nothing(batches: Batches, clock: Any, kind: str) -> None:
    batches.answer = lambda ctx: {"status": 503} if kind == "a retry" and ctx["step_id"] == "b" else {}
    batches.deploy({"a": handler_step(), "b": IDLE[kind]})
    ticks(batches, clock, 16)
    nothing = ticks(batches, clock, 8)
    for number in range(10):
        batches.send(data={"order": number})
    batches.drain()
    later(batches, clock, 60)
    meter = ticks(batches, clock, 8)
    assert (looks(meter), meter.write_units, meter.read_units) == (0, 0, nothing.read_units)
    clock.shift(DAY_S)
    meter = ticks(batches, clock, 8)
    assert looks(meter) == 10
    assert meter.write_units <= 8 == len({run.run.id for run, _ in batches.runs()}) - 2  # the cursors of the shards
    assert meter.read_units <= nothing.read_units + 16  # half a unit for each run, and for each page of the index
    meter = ticks(batches, clock, 8)
    assert (looks(meter), meter.write_units) == (0, 0)


def test_an_attempt_that_may_run_for_hours_is_looked_at_when_it_is_late(batches: Batches, clock: Any) -> None:
    batches.answer = lambda ctx: LOST if ctx["attempt"] == 1 else {}
    batches.deploy({"a": handler_step(timeout="6h")})
    batches.send()
    batches.drain()
    later(batches, clock, 60)  # event age, timeout and a minute are 7 h 1 min
    assert looks(later(batches, clock, 5 * 60)) == 0
    later(batches, clock, 61)
    assert len(batches.invoked) == 1
    ticks(batches, clock, 9)
    assert [run.run.status for run, _ in batches.runs()] == [RunStatus.COMPLETED]


def test_three_steps_in_seconds_write_no_watch_and_two_entries_of_the_index(batches: Batches, clock: Any) -> None:
    batches.deploy({"a": handler_step(), "b": handler_step("a"), "c": handler_step("b")})
    batches.send(id="warm")
    batches.drain()
    batches.send(id="e")
    with metered() as meter:
        batches.drain(batch=1)
    puts = [call.write_units for call in meter.calls if call.key.startswith("R#")]
    assert puts == [2, 1, 1, 2]
    assert meter.writes_of("D#") == 0


def test_a_wait_that_is_over_writes_one_watch(batches: Batches, clock: Any) -> None:
    batches.deploy({"a": handler_step(), "b": handler_step(WAIT), "c": handler_step("b"), "d": handler_step("c")})
    batches.send()
    batches.drain()
    clock.shift(3 * DAY_S - 60)
    batches.scheduler.tick()
    clock.shift(60)
    with metered() as meter:
        batches.drain()
    assert [run.run.status for run, _ in batches.runs()] == [RunStatus.COMPLETED]
    assert meter.writes_of("D#") == 1


# --- nothing is overlooked -------------------------------------------------------------------------------------------


def test_a_far_timer_whose_message_was_lost_is_sent_again(batches: Batches, clock: Any) -> None:
    batches.deploy({"a": handler_step(), "b": handler_step(WAIT)})
    batches.send()
    batches.drain()
    clock.shift(3 * DAY_S - 300)
    batches.scheduler.tick()
    lose_messages(batches)
    clock.shift(300)
    ticks(batches, clock, 2 + 8 + 1)
    assert [run.run.status for run, _ in batches.runs()] == [RunStatus.COMPLETED]


def test_a_run_that_an_event_woke_and_whose_attempt_is_lost_is_found_in_time(batches: Batches, clock: Any) -> None:
    batches.answer = lambda ctx: LOST if (ctx["step_id"], ctx["attempt"]) == ("b", 1) else {}
    batches.deploy({"a": handler_step(), "b": handler_step({"step": "a", "async": PAID}, timeout="30s")})
    batches.send(data={"order": 1})
    batches.drain()
    later(batches, clock, 60)
    clock.shift(DAY_S)
    batches.send("paid", {"order": 1})
    batches.drain()
    assert len(batches.invoked) == 2
    later(batches, clock, 61)
    assert len(batches.invoked) == 2
    ticks(batches, clock, 10)
    assert [run.run.status for run, _ in batches.runs()] == [RunStatus.COMPLETED]


def test_a_near_timer_of_an_old_run_whose_message_was_lost_fires_in_time(batches: Batches, clock: Any) -> None:
    batches.deploy({"a": handler_step(), "b": handler_step(WAIT), "c": handler_step({"step": "b", "wait": "5m"})})
    batches.send()
    batches.drain()
    later(batches, clock, 60)
    clock.shift(3 * DAY_S)
    ticks(batches, clock, 1)
    assert len(batches.invoked) == 2
    lose_messages(batches)
    ticks(batches, clock, 5 + 2 + 9)
    assert [run.run.status for run, _ in batches.runs()] == [RunStatus.COMPLETED]


def test_runs_that_an_older_version_left_are_found(batches: Batches, clock: Any) -> None:
    """They have no watch, and their far timers were deleted when they were sent."""
    batches.answer = lambda ctx: LOST if ctx["step_id"] == "b" and ctx["attempt"] == 1 else {}
    batches.deploy({"a": handler_step(), "b": handler_step("a"), "c": handler_step(WAIT)})
    batches.send()
    batches.drain()
    items = batches.outside_db.scan(TableName=batches.resources.table)["Items"]
    for item in items:
        if item["pk"]["S"].startswith("T#"):
            key = {"pk": item["pk"], "sk": item["sk"]}
            batches.outside_db.delete_item(TableName=batches.resources.table, Key=key)
    clock.shift(3 * DAY_S + 121)
    ticks(batches, clock, 9)
    assert [run.run.status for run, _ in batches.runs()] == [RunStatus.COMPLETED]


def test_once_a_day_each_run_is_looked_at_whatever_is_known_of_it(batches: Batches, clock: Any) -> None:
    batches.answer = lambda ctx: LOST if ctx["attempt"] == 1 else {}
    batches.deploy({"a": handler_step(timeout="6h")})
    batches.send()
    batches.drain()
    later(batches, clock, 60)
    for item in batches.outside_db.scan(TableName=batches.resources.table)["Items"]:
        if item["pk"]["S"].startswith("D#"):
            key = {"pk": item["pk"], "sk": item["sk"]}
            batches.outside_db.delete_item(TableName=batches.resources.table, Key=key)
    clock.shift(DAY_S)
    ticks(batches, clock, 9)
    assert [run.run.status for run, _ in batches.runs()] == [RunStatus.COMPLETED]


@pytest.mark.parametrize("ahead_h", [5, 50])
def test_a_round_of_a_clock_that_was_hours_ahead_hides_no_run(batches: Batches, clock: Any, ahead_h: int) -> None:
    batches.answer = lambda ctx: LOST if (ctx["step_id"], ctx["attempt"]) == ("a", 1) else {}
    batches.deploy({"a": handler_step(timeout="30m"), "b": handler_step({"step": "$trigger", "wait": "1h"})})
    batches.send()
    batches.drain()
    later(batches, clock, 45)
    clock.shift(ahead_h * HOUR_S)
    for _ in range(8):
        batches.scheduler.tick()
        clock.shift(60)
    lose_messages(batches)
    clock.shift(-ahead_h * HOUR_S - 8 * 60)
    later(batches, clock, 91 - 45)
    ticks(batches, clock, 10)
    assert [run.run.status for run, _ in batches.runs()] == [RunStatus.COMPLETED]


def test_lists_show_runs_that_wait(batches: Batches, clock: Any) -> None:
    batches.deploy({"a": handler_step(), "b": handler_step(WAIT)})
    batches.send()
    batches.drain()
    later(batches, clock, 60)
    clock.shift(DAY_S)
    ticks(batches, clock, 8)
    listed = [run for _, run in batches.session.store.lists.runs_of_status("running", None, 10)]
    assert listed == [run.run.id for run, _ in batches.runs()]


# --- which watch a run needs -----------------------------------------------------------------------------------------

CREATED = 1_780_308_030_000
SOON_MS = 2 * MINUTE_MS
DELAYED = compile_plan(
    parse_definition(
        {"id": "f", "triggers": [{"event": "go"}], "steps": {"a": handler_step({"step": "$trigger", "wait": "10m"})}}
    ).normalised(),
    1,
)


def delayed(late_at: int, watched: int | None = None) -> Record:
    """A run with a fact that is overdue at this time, and with this watch."""
    run = new_run("run", DELAYED, CREATED)._replace(pauses=(PauseState(PauseStatus.DELAYED, late_at - LATE_MS),))
    event = event_from({"name": "go", "id": "e", "ts": CREATED})
    return Record(run, DELAYED, event, 0, stored=StoredState(watched=watched))


def has_watch(resources: Resources, at: int) -> bool:
    return read_item(resources.table, watch_key("run", at)) is not None


def test_a_run_gets_a_watch_once_it_is_not_young_any_more(resources: Resources) -> None:
    """Before, it is found through the index."""
    old, at = CREATED + YOUNG_MS, CREATED + YOUNG_MS + 10 * MINUTE_MS
    watches = Watches(resources)
    assert watches.of_change(delayed(at), old - 1) is None
    assert not has_watch(resources, at)
    assert watches.of_change(delayed(at), old) == at
    assert has_watch(resources, at)


@pytest.mark.parametrize("more", [SOON_MS, SOON_MS - 1, 0, -MINUTE_MS])
def test_what_is_late_soon_is_looked_at_when_the_change_is_surely_written(resources: Resources, more: int) -> None:
    now = CREATED + YOUNG_MS
    assert Watches(resources).of_change(delayed(now + more), now) == now + SOON_MS
    assert has_watch(resources, now + SOON_MS)


@pytest.mark.parametrize(
    ("known", "is_enough"),
    [(SOON_MS - 1, False), (SOON_MS, True), (10 * MINUTE_MS, True), (10 * MINUTE_MS + 1, False), (None, False)],
)
def test_a_watch_is_enough_if_it_comes_neither_at_once_nor_too_late(
    resources: Resources, known: int | None, is_enough: bool
) -> None:
    now = CREATED + YOUNG_MS
    watched, at = None if known is None else now + known, now + 10 * MINUTE_MS
    assert Watches(resources).of_change(delayed(at, watched), now) == (watched if is_enough else at)
    assert has_watch(resources, at) is not is_enough


def test_a_run_that_only_waits_for_a_far_timer_needs_no_watch(resources: Resources) -> None:
    now = CREATED + YOUNG_MS
    far = delayed(now + LATE_MS + 14 * MINUTE_MS + 1, watched=7)
    assert Watches(resources).of_change(far, now) == 7
    assert Watches(resources).of_change(delayed(now + LATE_MS + 14 * MINUTE_MS, watched=7), now) != 7


def test_a_watch_is_due_at_its_time_and_each_once(resources: Resources) -> None:
    runs = [f"run{number}" for number in range(40)]
    shard, now = 3, CREATED
    runs = [run for run in runs if shard_of(run, STATUS_SHARDS) == shard][:3]
    at = now + SOON_MS
    put_items(resources.table, [watch_item(run, at + number - 1, now) for number, run in enumerate(runs)])

    def due(now: int, after: str = "") -> list[str]:
        return [key["sk"]["S"] for page in due_watches(resources.table, shard, after, now) for key in page]

    first, second = (watch_key(run, at)["sk"]["S"] for run in runs[:2])  # no watch is written for an earlier time
    assert due(at - 1) == []
    assert due(at) == sorted([first, second])
    assert due(at, after=min(first, second)) == [max(first, second)]
    assert len(due(at + 1)) == 3


def test_a_watch_is_kept_for_a_day_after_its_time(resources: Resources) -> None:
    assert int(watch_item("run", CREATED + HOUR_S * 1000, CREATED)["ttl"]["N"]) == CREATED // 1000 + HOUR_S + DAY_S
    assert KEPT_MS == DAY_S * 1000


# --- whatever happens ------------------------------------------------------------------------------------------------

BOUND_MIN = 8 + 2 + 1  # a round of all shards; the delay of a due watch; the minute in which it became overdue


def any_step(rng: random.Random, after: list[str]) -> Json:
    edges = []
    for parent in rng.sample(after, min(len(after), rng.randint(0, 2))) or ["$trigger"]:
        edge: Json = {"step": parent}
        if rng.random() < 0.6:
            edge["wait"] = rng.choice(["1m", "12m", "20m", "40m"])
        if rng.random() < 0.3:
            edge["async"] = {**PAID, "ttl": rng.choice(["5m", "20m", "40m"]), "onTimeout": rng.random() < 0.7}
        edges.append(edge)
    if rng.random() < 0.15:
        asks = {"type": "approval", "message": "Really?"}
        return {"runtime": asks, "timeout": rng.choice(["10m", "40m"]), "after": edges}
    backoff = {"initial": rng.choice(["10s", "15m", "20m"]), "jitter": 0}
    retries = {"attempts": rng.randint(0, 2), "backoff": backoff}
    return handler_step(*edges, retries=retries, timeout=rng.choice(["30s", "5m"]))


class Stored(NamedTuple):
    run: Run
    plan: Plan
    causes: dict[int, tuple[str, int]]


def stored_runs(batches: Batches) -> list[Stored]:
    version = batches.session.registry.version
    return [
        Stored(stored_run.run, version(stored_run.function, stored_run.version).plan, stored_run.causes)
        for stored_run, _ in batches.runs()
    ]


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_lost_or_dies_no_fact_of_a_run_is_late_for_longer_than_a_round(
    resources: Resources, clock: Any, seed: int
) -> None:
    """Random runs, silent steps, processes that die before any request, and queues that lose all messages.

    Lambda calls a `tick` that died again.
    """
    rng = random.Random(seed)
    batches = Batches(replace(resources, event_age_s=SHORT_AGE_MS // 1000))
    batches.answer = lambda ctx: rng.choice([{}, {}, {}, {"status": 503}, LOST])
    steps: Json = {}
    for name in "abcd":
        steps[name] = any_step(rng, list(steps))
    batches.deploy(steps)
    batches.send(data={"order": 1})
    late_for: dict[tuple[str, Fact], int] = {}
    for minute in range(110):
        if minute < 80 and rng.random() < 0.1:
            batches.crash_at = len(batches.requests) + rng.randint(0, 12)
        if minute in (20, 40, 60):
            batches.send("paid" if rng.random() < 0.5 else "go", {"order": 1})
        try:
            batches.scheduler.tick()
        except Crash:
            batches.start()
            batches.scheduler.tick()
        batches.drain()
        if minute < 80 and rng.random() < 0.1:
            lose_messages(batches)
            late_for.clear()  # messages that were found by now may be lost
        clock.shift(60)
        runs = stored_runs(batches)
        late = [(run.run.id, fact) for run in runs for fact in overdue(run, now_ms(), SHORT_AGE_MS)]
        late_for = {fact: late_for.get(fact, 0) + 1 for fact in late}
        assert max(late_for.values(), default=0) <= BOUND_MIN, (seed, minute, steps)


@pytest.mark.parametrize("seed", range(8))
def test_before_the_next_look_nothing_but_far_timers_can_be_late(batches: Batches, clock: Any, seed: int) -> None:
    """In any state that a random run passes through."""
    rng = random.Random(seed)
    batches.answer = lambda ctx: rng.choice([{}, {"status": 503}, LOST])
    batches.deploy({name: any_step(rng, list("abcd"[:n])) for n, name in enumerate("abcd")})
    batches.send(data={"order": 1})
    for _ in range(8):
        batches.drain()
        now, until_far = now_ms(), now_ms() + 14 * MINUTE_MS + 120_000
        for record in stored_runs(batches):
            at = next_check_at(record, now, AGE_MS)
            until = now + 300 * MINUTE_MS if at is None else at - 1
            assert overdue(record, min(until, until_far), AGE_MS) == []
            assert not any(isinstance(fact, AttemptLost | RunStarted) for fact in overdue(record, until, AGE_MS))
        clock.shift(rng.choice([30, 700, 1300]))

"""Tests a bounded batch: events and facts are processed in pieces, work in progress goes first, and the rest of the
events is left for later batches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest

from stepwell.core.events.events import Event
from stepwell.core.run.messages import AttemptEnded, DeadlinePassed, Outcome
from stepwell.core.run.run import PauseStatus
from stepwell.engine.work import Undone
from stepwell.platform import (
    DamagedRun,
    FoundWaits,
    IncomingEvent,
    NewEvent,
    OpenedWait,
    Route,
    RunFact,
    RunRecord,
    WaitPlace,
)
from stepwell.testing.memory import MemoryBatch
from tests.engine.scene import NOW, Scene, event_of, plan_of, step

TTL = 60_000
WAIT = {"step": "$trigger", "async": {"event": "paid", "ttl": "1m", "match": "async.data.n == event.data.n"}}
BY_NAME = {"step": "$trigger", "async": {"event": "paid", "ttl": "1m", "match": "async.data.n > 0"}}
LONG = "data.list.map(x, x).size() == 1000"  # costs an estimated 20 ms, more than a piece may take
LIST = [0] * 1000


class Pieces:
    """Implements `platform.Pace`."""

    def __init__(self, at_once: int = 2, *, most: float = math.inf) -> None:
        self.at_once, self._most = at_once, most
        self.counted: list[int] = []
        self.asked: list[float] = []  # the argument of each call of `is_enough`
        self.left: list[Route] = []
        self.earlier: set[str] = set()  # names of events that were left for later

    def count(self, done: int) -> None:
        self.counted.append(done)

    def is_enough(self, left: float) -> bool:
        self.asked.append(left)
        return left > self._most

    def must_wait(self, name: str) -> bool:
        return name in self.earlier

    def leave(self, routes: Iterable[Route]) -> None:
        self.left += routes


def steps(
    scene: Scene,
    pace: Pieces,
    *events: Event,
    facts: Sequence[RunFact] = (),
    routes: Iterable[Route] = (),
    batch: MemoryBatch | None = None,
) -> Iterator[None]:
    incoming = [IncomingEvent(event) for event in events]
    return scene.engine.steps(batch or scene.batch(), incoming, facts, Undone(), pace, routes)


def many(count: int, name: str = "go", **fields: Any) -> list[Event]:
    return [event_of(name, f"{name}{number}", **fields) for number in range(count)]


def growth(scene: Scene, pieces: Iterator[None], what: dict[Any, Any]) -> list[int]:
    """The number of new entries in a dictionary after each piece."""
    sizes = [len(what)]
    for _ in pieces:
        sizes.append(len(what))
    return [after - before for before, after in pairwise(sizes)]


def started_events(scene: Scene) -> list[str]:
    return [attempt.record.event.id for attempt in scene.dispatcher.take().starts]


# --- pieces ----------------------------------------------------------------------------------------------------------


def test_events_are_accepted_and_runs_started_a_piece_at_a_time_in_their_order() -> None:
    scene = Scene(plan_of())
    pace = Pieces(2)
    pieces = steps(scene, pace, *many(5))
    stored: list[int] = []
    runs: list[int] = []
    for _ in pieces:
        stored.append(len(scene.store.events))
        runs.append(len(scene.store.runs))
    assert started_events(scene) == [f"go{number}" for number in range(5)]
    for seen in (stored, runs):
        assert max(after - before for before, after in pairwise([0, *seen])) == 2
    assert sum(pace.counted) == 10, "each event, and each run's first fact"


def test_no_run_starts_before_all_events_of_the_request_are_accepted() -> None:
    scene = Scene(plan_of())
    for _ in steps(scene, Pieces(2), *many(5)):
        assert len(scene.store.events) == 5 or not scene.store.runs


def test_an_event_that_starts_many_functions_does_so_in_pieces() -> None:
    scene = Scene(*(plan_of(f"f{number}") for number in range(5)))
    assert max(growth(scene, steps(scene, Pieces(2), event_of()), scene.store.runs)) == 2
    assert sorted(record.plan.function_id for record in scene.store.runs.values()) == ["f0", "f1", "f2", "f3", "f4"]


def test_the_last_functions_of_an_event_and_the_first_of_the_next_share_a_piece() -> None:
    scene = Scene(*(plan_of(f"f{number}") for number in range(3)))
    grown = growth(scene, steps(scene, Pieces(2), *many(2)), scene.store.runs)
    assert [number for number in grown if number] == [2, 2, 2]


def test_an_event_that_wakes_many_runs_does_so_in_pieces() -> None:
    scene = Scene(plan_of(a=step(WAIT)))
    scene.send(*many(5, data={"n": 1}))
    woken = [0]
    for _ in steps(scene, Pieces(2), event_of("paid", "p", data={"n": 1})):
        woken.append(len(scene.dispatcher.effects.starts))
    assert sorted(set(woken)) == [0, 1, 3, 5], "to find them counts like one of them"
    assert started_events(scene) == [f"go{number}" for number in range(5)]


def test_facts_are_folded_in_their_order_before_any_event_starts_a_run() -> None:
    scene = Scene(plan_of(a=step(), b=step("a")))
    scene.send(*many(5))
    first = scene.dispatcher.take().starts
    ends = [RunFact(attempt.record.run.id, AttemptEnded(0, 1, Outcome(b"1"))) for attempt in first]
    pace = Pieces(2)
    for _ in steps(scene, pace, event_of(id="new"), facts=ends):
        if len(scene.store.runs) > 5:
            break
    order = [(attempt.record.event.id, attempt.step) for attempt in scene.dispatcher.take().starts]
    assert order == [*((f"go{number}", 1) for number in range(5)), ("new", 0)]


def test_each_decision_is_counted_once() -> None:
    scene = Scene(plan_of(a=step(), b=step("a")))
    scene.send(*many(3))
    ends = [RunFact(run_id, AttemptEnded(0, 1, Outcome(b"1"))) for run_id in scene.store.runs]
    pace = Pieces(2)
    list(steps(scene, pace, facts=ends))
    assert sum(pace.counted) == 3


def test_the_work_of_an_event_counts_lookups_wakes_and_starts() -> None:
    """One lookup, one woken run and two started runs are a piece of four."""
    scene = Scene(plan_of("f"), plan_of("g"), plan_of("w", on="begin", a=step(WAIT)))
    scene.send(event_of("begin", "b", data={"n": 1}))
    pieces = steps(scene, Pieces(4), event_of("paid", "p", data={"n": 1}), event_of())
    assert [number for number in growth(scene, pieces, scene.store.runs) if number] == [2]
    assert len(scene.dispatcher.effects.starts) == 3
    scene = Scene(plan_of("f"), plan_of("g"), plan_of("w", on="begin", a=step(WAIT)))
    scene.send(event_of("begin", "b", data={"n": 1}))
    pieces = steps(scene, Pieces(3), event_of("paid", "p", data={"n": 1}), event_of())
    assert [number for number in growth(scene, pieces, scene.store.runs) if number] == [1, 1]


# --- enough ----------------------------------------------------------------------------------------------------------


def test_when_the_limit_is_reached_the_rest_of_the_events_is_left() -> None:
    scene = Scene(plan_of("f"), plan_of("g"), plan_of("w", on="other", a=step(WAIT)))
    pace = Pieces(2, most=3)
    list(steps(scene, pace, *many(2), event_of("paid", "p", data={"n": 1})))
    assert scene.store.runs == {}
    left = [(route.event.id, route.event.position, list(route.starts), route.is_awaited) for route in pace.left]
    assert left == [("go0", 1, ["f", "g"], False), ("go1", 2, ["f", "g"], False), ("p", 3, [], True)]
    assert pace.asked[-1] == 4
    assert len(scene.store.events) == 3, "they are accepted all the same"


def test_a_later_batch_does_the_rest_and_nothing_twice() -> None:
    scene = Scene(plan_of("f"), plan_of("g"))
    pace = Pieces(1, most=1)
    list(steps(scene, pace, event_of()))
    later = Pieces(1)
    list(steps(scene, later, routes=pace.left))
    assert sorted(record.plan.function_id for record in scene.store.runs.values()) == ["f", "g"]
    assert later.left == []


def test_the_pace_is_not_asked_if_nothing_is_left() -> None:
    scene = Scene(plan_of())
    pace = Pieces(2)
    list(steps(scene, pace, event_of("other", "o")))
    assert pace.asked == []


def test_found_runs_count_as_work_that_is_left() -> None:
    scene = Scene(plan_of(a=step(WAIT)))
    scene.send(*many(5, data={"n": 1}))
    pace = Pieces(2)
    list(steps(scene, pace, event_of("paid", "p", data={"n": 1})))
    assert pace.asked == [0, 4, 2]


def test_an_event_waits_behind_earlier_ones_with_its_name() -> None:
    scene = Scene(plan_of("f"), plan_of("g", on="other"))
    pace = Pieces(5)
    pace.earlier.add("go")
    list(steps(scene, pace, event_of(id="late"), event_of("other", "o")))
    assert [route.event.id for route in pace.left] == ["late"]
    assert scene.record.event.id == "o"


def test_an_event_in_progress_goes_on_even_if_others_with_its_name_are_left() -> None:
    scene = Scene(*(plan_of(f"f{number}") for number in range(5)))
    pace = Pieces(2)
    for _ in steps(scene, pace, event_of()):
        if scene.store.runs:
            pace.earlier.add("go")
    assert len(scene.store.runs) == 5
    assert pace.left == []


class SomeAtOnce(MemoryBatch):
    """A store that returns two waits at a time."""

    def find_waits(self, event: Event, keys: Sequence[bytes], behind: WaitPlace | None = None) -> FoundWaits:
        places = {(b"", record.order, 0): run_id for run_id, record in self._store.runs.items()}
        waits = {wait.run_id: wait for wait in super().find_waits(event, keys).waits}
        found = [
            OpenedWait(run_id, 0, waits[run_id].deadline, place)
            for place, run_id in sorted(places.items())
            if run_id in waits and (behind is None or place > behind)
        ]
        return FoundWaits(found[:2], is_all=len(found) <= 2)


def test_a_store_that_returns_some_waits_is_asked_for_the_next_ones() -> None:
    scene = Scene(plan_of(a=step(WAIT)))
    scene.send(*many(5, data={"n": 1}))
    for pace in (Pieces(2), None):
        scene.now += 1
        paid = event_of("paid", f"p{scene.now}", data={"n": 1})
        batch = SomeAtOnce(scene.store, scene.now)
        list(scene.engine.steps(batch, [IncomingEvent(paid)], [], Undone(), pace))
        assert len(started_events(scene)) == (5 if pace else 0)
        scene.store.waits.clear()


def test_how_many_runs_are_left_to_find_is_not_known() -> None:
    scene = Scene(plan_of(a=step(WAIT)))
    scene.send(*many(5, data={"n": 1}))
    pace = Pieces(2, most=100)
    paid = event_of("paid", "p", data={"n": 1})
    list(steps(scene, pace, paid, batch=SomeAtOnce(scene.store, NOW)))
    (route,) = pace.left
    assert pace.asked[-1] == math.inf
    assert route.behind is not None
    assert started_events(scene) == ["go0"]
    list(steps(scene, Pieces(2), routes=pace.left, batch=SomeAtOnce(scene.store, NOW)))
    assert started_events(scene) == ["go1", "go2", "go3", "go4"]


# --- expressions that take long --------------------------------------------------------------------------------------


def test_each_event_whose_expression_takes_long_is_a_piece() -> None:
    scene = Scene(plan_of(fields={"triggers": [{"event": "go", "expression": f"event.{LONG}"}]}))
    pieces = steps(scene, Pieces(10), *many(3, data={"list": LIST}))
    assert [number for number in growth(scene, pieces, scene.store.events) if number] == [1, 1, 1]
    assert started_events(scene) == ["go0", "go1", "go2"]


def test_each_run_whose_condition_takes_long_is_a_piece() -> None:
    scene = Scene(plan_of(a=step({"step": "$trigger", "if": f"event.{LONG}"})))
    pace = Pieces(10)
    pieces = steps(scene, pace, *many(3, data={"list": LIST}))
    assert [number for number in growth(scene, pieces, scene.store.runs) if number] == [1, 1, 1]
    assert started_events(scene) == ["go0", "go1", "go2"]
    assert sum(pace.counted) == 6


def test_each_run_whose_match_takes_long_is_a_piece() -> None:
    wait = {"step": "$trigger", "async": {"event": "paid", "ttl": "1m", "match": f"async.{LONG}"}}
    scene = Scene(plan_of(a=step(wait)))
    scene.send(*many(3))
    before = len(scene.store.waits)
    left = [before]
    for _ in steps(scene, Pieces(10), event_of("paid", "p", data={"list": LIST})):
        left.append(len(scene.store.waits))
    assert sorted(set(left), reverse=True) == [3, 2, 1, 0]
    assert started_events(scene) == ["go0", "go1", "go2"]


def test_without_a_pace_slow_expressions_do_not_end_a_piece() -> None:
    scene = Scene(plan_of(fields={"triggers": [{"event": "go", "expression": f"event.{LONG}"}]}))
    batch = scene.batch()
    asked = []
    put = batch.put_events

    def noting(events: Sequence[NewEvent]) -> Any:
        asked.append(len(events))
        return put(events)

    batch.put_events = noting  # type: ignore[method-assign]
    scene.engine.process(batch, [IncomingEvent(event) for event in many(3, data={"list": LIST})], [])
    assert asked == [3]


# --- scans of many events --------------------------------------------------------------------------------------------


def lost(scene: Scene, *numbers: int) -> None:
    """Stores events as a batch does that crashes before it wakes runs."""
    batch = scene.batch()
    events = [event_of("paid", f"p{scene.now}-{place}", data={"n": n}) for place, n in enumerate(numbers)]
    batch.put_events([NewEvent(event, batch.catalog().keys(event), (), ()) for event in events])


def test_a_scan_of_many_events_is_done_in_pieces() -> None:
    for place in (0, 199, 200, 201, 449):
        scene = Scene(plan_of(a=step(BY_NAME)))
        scene.send(event_of())
        lost(scene, *(1 if number == place else 0 for number in range(450)))
        scene.now += TTL
        number = sum(1 for _ in steps(scene, Pieces(10), facts=[RunFact(scene.run.id, DeadlinePassed(0))]))
        assert scene.run.pauses[0].event_id == f"p{NOW}-{place}"
        assert number >= 1 + place // 200


def test_a_scan_with_slow_expressions_is_done_one_event_at_a_time() -> None:
    wait = {"event": "paid", "ttl": "1m", "match": f"!(async.{LONG})"}
    scene = Scene(plan_of(a=step({"step": "$trigger", "async": wait})))
    scene.send(event_of())
    batch = scene.batch()
    events = many(5, "paid", data={"list": LIST})
    batch.put_events([NewEvent(event, (), (), ()) for event in events])
    scene.now += TTL
    seen = []
    for _ in steps(scene, Pieces(10), facts=[RunFact(scene.run.id, DeadlinePassed(0))]):
        seen.append(scene.run.pauses[0].status)
    assert seen.count(PauseStatus.AWAITING) >= 5
    assert seen[-1] is PauseStatus.EXPIRED


def test_an_expired_wait_ends_after_all_events_were_scanned() -> None:
    scene = Scene(plan_of(a=step(BY_NAME)))
    scene.send(event_of())
    lost(scene, *[0] * 450)
    scene.now += TTL
    seen = []
    for _ in steps(scene, Pieces(10), facts=[RunFact(scene.run.id, DeadlinePassed(0))]):
        seen.append(scene.run.pauses[0].status)
    assert seen[-1] is PauseStatus.EXPIRED
    assert seen.count(PauseStatus.AWAITING) >= 2, "it has not passed before"


def test_a_new_wait_continues_its_scan_and_does_not_expire() -> None:
    """The events were accepted after the run's event and before the wait, which comes after a slow step."""
    late = {"step": "a", "async": BY_NAME["async"]}
    for is_there in (True, False):
        scene = Scene(plan_of(a=step(), b=step(late)))
        scene.send(event_of())
        (attempt,) = scene.dispatcher.take().starts
        lost(scene, *[0] * 449, int(is_there))
        end = RunFact(attempt.record.run.id, AttemptEnded(0, 1, Outcome(b"1")))
        list(steps(scene, Pieces(10), facts=[end]))
        assert scene.run.pauses[0].status is (PauseStatus.MATCHED if is_there else PauseStatus.AWAITING)
        assert scene.started() == (["b"] if is_there else [])


class Breaking(MemoryBatch):
    """A store that cannot read runs from the second call on."""

    def __init__(self, scene: Scene, error: Exception) -> None:
        super().__init__(scene.store, scene.now)
        self._error, self._reads = error, 0

    def load(self, run_ids: Iterable[str]) -> dict[str, RunRecord]:
        wanted = list(run_ids)
        self._reads += bool(wanted)
        if self._reads > 1:
            raise self._error
        return super().load(wanted)


def test_a_scan_is_repeated_after_a_read_error_and_given_up_for_a_damaged_run() -> None:
    scene = Scene(plan_of(a=step(BY_NAME)))
    scene.send(event_of())
    lost(scene, *[0] * 450)
    scene.now += TTL
    facts = [RunFact(scene.run.id, DeadlinePassed(0))]
    with pytest.raises(OSError, match="the disk"):
        list(steps(scene, Pieces(10), facts=facts, batch=Breaking(scene, OSError("the disk"))))
    list(steps(scene, Pieces(10), facts=facts, batch=Breaking(scene, DamagedRun("the row"))))
    assert scene.run.pauses[0].status is PauseStatus.AWAITING


def test_no_event_is_accepted_during_a_scan() -> None:
    """An event in between could be taken for the earliest one."""
    scene = Scene(plan_of(a=step(BY_NAME)))
    scene.send(event_of())
    lost(scene, *[0] * 449, 1)
    scene.now += TTL - 1
    (run_id,) = scene.store.runs
    first = event_of("paid", "later", data={"n": 1})
    scene.now += 1
    pieces = steps(scene, Pieces(10), first, facts=[RunFact(run_id, DeadlinePassed(0))])
    for _ in pieces:
        if "later" in scene.store.events and scene.run.pauses[0].status is PauseStatus.AWAITING:
            assert len(scene.store.events) == 452
    assert scene.run.pauses[0].event_id == f"p{NOW}-449"

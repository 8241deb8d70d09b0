"""Tests scans for events accepted before a wait, and outcomes that were stored before they were folded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from stepwell.core.events.events import Event
from stepwell.core.run.messages import (
    AttemptEnded,
    AttemptStarted,
    CancelRequested,
    DeadlinePassed,
    EventArrived,
    Outcome,
)
from stepwell.core.run.resume import Restart
from stepwell.core.run.run import PauseStatus, RunStatus, StepStatus
from stepwell.engine.replay import replay_events
from stepwell.engine.rerun import rerun
from stepwell.engine.scan import ALL_SEEN, Scan, find_matching_event
from stepwell.engine.work import Undone
from stepwell.platform import Cause, NewEvent, NotWritten, RunFact, RunRecord, Transition
from stepwell.testing.memory import MemoryBatch
from tests.engine.scene import NOW, Scene, event_of, plan_of, step
from tests.engine.test_pace import Pieces

MESSAGE = Cause("m", redelivered=False)
TTL = 60_000
POSITIVE = {"event": "paid", "ttl": "1m", "match": "async.data.n > 0"}
EQUAL = {"event": "paid", "ttl": "1m", "match": "async.data.n == event.data.n"}


def waiting(wait: dict[str, Any] = POSITIVE, **data: Any) -> Scene:
    """A scene with a waiting run."""
    scene = Scene(plan_of(a=step({"step": "$trigger", "async": wait})))
    scene.send(event_of(data=data))
    return scene


def lost(scene: Scene, *numbers: int) -> None:
    """Stores events as a batch does that crashes before it wakes runs."""
    batch = scene.batch()
    first = len(scene.store.events)
    events = [event_of("paid", f"p{first + place}", data={"n": n}) for place, n in enumerate(numbers)]
    batch.put_events([NewEvent(event, batch.catalog().keys(event), (), ()) for event in events])


def look(scene: Scene, pause: int = 0, **fields: Any) -> Scan:
    return find_matching_event(scene.batch(), scene.record, pause, **fields)


# --- which event is found --------------------------------------------------------------------------------------------


def test_the_earliest_event_that_satisfies_a_wait_is_found() -> None:
    scene = waiting()
    lost(scene, 0, 1, 1)
    assert look(scene) == Scan(EventArrived(0, "p2"))
    assert look(scene, after=3) == Scan(EventArrived(0, "p3")), "what is behind that position"
    assert look(scene, after=4) == ALL_SEEN


def test_a_scan_never_finds_events_from_before_the_run() -> None:
    scene = Scene(plan_of(a=step({"step": "$trigger", "async": POSITIVE})))
    lost(scene, 1)
    scene.send(event_of())
    assert look(scene) == ALL_SEEN
    assert look(scene, after=0) == ALL_SEEN


def test_a_closed_wait_finds_nothing() -> None:
    scene = waiting()
    lost(scene, 1, 2)
    scene.fold(scene.run.id, EventArrived(0, "p1"))
    assert look(scene) == ALL_SEEN


def test_a_delay_waits_for_no_event() -> None:
    scene = Scene(plan_of(a=step({"step": "$trigger", "wait": "1m"})))
    scene.send(event_of())
    assert scene.run.pauses[0].status is PauseStatus.DELAYED
    assert look(scene) == ALL_SEEN


def test_a_wait_whose_match_has_no_value_finds_nothing_until_its_deadline() -> None:
    scene = waiting(EQUAL)
    assert [kind for kind, _, _ in scene.run.problems] == ["pause"]
    lost(scene, 1)
    assert look(scene) == ALL_SEEN
    scene.now += TTL
    scene.fold(scene.run.id, DeadlinePassed(0))
    assert scene.run.pauses[0].status is PauseStatus.EXPIRED


def test_the_problem_of_one_wait_does_not_affect_another() -> None:
    edges = ({"step": "$trigger", "async": EQUAL}, {"step": "$trigger", "async": POSITIVE})
    scene = Scene(plan_of(a=step(edges[0]), b=step(edges[1])))
    scene.send(event_of())
    lost(scene, 1)
    assert [look(scene, pause).found for pause in (0, 1)] == [None, EventArrived(1, "p1")]


def test_an_event_that_satisfied_a_wait_does_not_satisfy_a_later_one() -> None:
    steps = {"a": step({"step": "$trigger", "async": POSITIVE}), "b": step({"step": "a", "async": POSITIVE})}
    scene = Scene(plan_of(**steps))
    scene.send(event_of())
    scene.send(event_of("paid", "p1", data={"n": 1}))
    (attempt,) = scene.dispatcher.take().starts
    lost(scene, 1)
    scene.end(attempt)
    assert [pause.event_id for pause in scene.run.pauses] == ["p1", "p2"]


# --- a piece at a time -----------------------------------------------------------------------------------------------


class Bounded(MemoryBatch):
    """A store that scans a limited number of events at once."""

    most_events = 3


@pytest.mark.parametrize(("place", "is_found"), [(2, True), (3, False)])
def test_a_batch_that_scans_some_events_schedules_the_scan_of_the_rest(place: int, is_found: bool) -> None:
    scene = waiting()
    lost(scene, *(int(number == place) for number in range(5)))
    batch = Bounded(scene.store, scene.now)
    scan = find_matching_event(batch, scene.record, 0)
    assert scan.found == (EventArrived(0, f"p{place + 1}") if is_found else None)
    assert batch.continued == ([] if is_found else [(scene.run.id, 0, 4)])
    assert (scan.left_at, scan.is_continued) == ((None, False) if is_found else (4, True))


def test_the_rest_of_a_scan_repeats_no_event_and_respects_the_deadline() -> None:
    scene = waiting()
    lost(scene, 0, 0, 0, 0, 1)
    scene.now += TTL
    batch = Bounded(scene.store, scene.now)
    scene.engine.process(batch, [], [RunFact(scene.run.id, DeadlinePassed(0))])
    assert batch.continued == [(scene.run.id, 0, 4)]
    assert scene.run.pauses[0].status is PauseStatus.AWAITING
    scene.engine.process(Bounded(scene.store, scene.now), [], [RunFact(scene.run.id, DeadlinePassed(0, looked=4))])
    assert scene.run.pauses[0].event_id == "p5"


def test_a_scan_stops_at_the_limit_unless_it_has_found_an_event() -> None:
    scene = waiting()
    lost(scene, 0, 1)
    assert look(scene, is_enough=lambda number: number == 1) == Scan(left_at=2)
    assert look(scene, is_enough=lambda number: number == 2) == Scan(EventArrived(0, "p2"))


# --- deadlines -------------------------------------------------------------------------------------------------------


def test_a_deadline_does_not_expire_a_wait_that_an_earlier_fact_of_the_batch_has_ended() -> None:
    scene = waiting()
    lost(scene, 1, 2)
    scene.now += TTL
    scene.fold(scene.run.id, EventArrived(0, "p2"), DeadlinePassed(0))
    assert scene.run.pauses[0].event_id == "p2"


def test_an_event_found_by_a_scan_has_the_message_that_opened_the_wait() -> None:
    scene = Scene(plan_of(a=step(), b=step({"step": "a", "async": POSITIVE})))
    scene.send(event_of())
    (attempt,) = scene.dispatcher.take().starts
    lost(scene, 1)
    scene.end(attempt, cause=MESSAGE)
    (started,) = scene.dispatcher.take().starts
    assert (started.step, started.cause) == (1, MESSAGE)


# --- outcomes that are stored ----------------------------------------------------------------------------------------


class Pending(MemoryBatch):
    """A store with outcomes that are not folded yet."""

    def __init__(self, scene: Scene, *outcomes: AttemptEnded) -> None:
        super().__init__(scene.store, scene.now)
        self._outcomes = outcomes

    def pending_outcomes(self, record: RunRecord) -> Sequence[AttemptEnded]:
        return self._outcomes


def test_stored_outcomes_are_folded_before_new_facts() -> None:
    scene = Scene(plan_of(a=step(), b=step()))
    scene.send(event_of())
    scene.dispatcher.take()
    batch = Pending(scene, AttemptEnded(0, 1, Outcome(b"1")))
    scene.engine.process(batch, [], [RunFact(scene.run.id, CancelRequested(), MESSAGE)])
    assert [state.status for state in scene.run.steps] == [StepStatus.COMPLETED, StepStatus.CANCELLED]
    assert scene.record.outputs == {0: b"1"}
    assert scene.dispatcher.take().stops == [(scene.run.id, 1, 1)]


def test_a_stored_outcome_that_is_also_delivered_is_folded_once() -> None:
    scene = Scene(plan_of(a=step(retries={"attempts": 3}), b=step()))
    scene.send(event_of())
    ended = AttemptEnded(0, 1, Outcome(b"1"))
    folded: list[Transition] = []

    class Noting(Pending):
        def commit(self, transitions: Sequence[Transition]) -> Any:
            folded.extend(transitions)
            return super().commit(transitions)

    scene.engine.process(Noting(scene, ended), [], [RunFact(scene.run.id, ended, MESSAGE)])
    assert [transition.causes for transition in folded] == [[MESSAGE]]


def test_attempts_after_a_stored_outcome_are_claimed_by_the_current_message() -> None:
    scene = Scene(plan_of(a=step(), b=step("a"), c=step()))
    scene.send(event_of())
    scene.dispatcher.take()
    other = AttemptEnded(2, 1, Outcome(b"3"))
    scene.engine.process(Pending(scene, AttemptEnded(0, 1, Outcome(b"1"))), [], [RunFact(scene.run.id, other, MESSAGE)])
    (started,) = scene.dispatcher.take().starts
    assert (started.step, started.cause) == (1, MESSAGE)


# --- the loop --------------------------------------------------------------------------------------------------------


def test_events_of_the_engine_start_functions_in_the_same_batch() -> None:
    scene = Scene(plan_of("f"), plan_of("told", on="stepwell/run.completed"))
    scene.send(event_of())
    (attempt,) = scene.dispatcher.take().starts
    scene.end(attempt)
    (started,) = scene.dispatcher.take().starts
    assert started.record.plan.function_id == "told"
    assert started.record.event.data["run_id"] == attempt.record.run.id


def test_the_slot_of_a_deleted_run_is_returned_and_others_go_on() -> None:
    scene = Scene(plan_of(), programs=0)
    scene.send(event_of())
    scene.dispatcher.take()
    claims = [RunFact(run_id, AttemptStarted(0, 1)) for run_id in ("gone", scene.run.id)]
    scene.engine.process(scene.batch(), [], claims)
    effects = scene.dispatcher.take()
    assert effects.released == [("gone", 0, 1)]
    assert [attempt.record.run.id for attempt in effects.starts] == [scene.run.id]


def test_runs_of_one_batch_share_the_free_slots() -> None:
    scene = Scene(*(plan_of(name) for name in "abc"), programs=2)
    scene.send(event_of())
    effects = scene.dispatcher.take()
    assert (len(effects.starts), len(effects.queued)) == (2, 1)


def test_consequent_facts_are_folded_after_the_given_ones() -> None:
    """The input of `b` is too large. This failure is folded after the cancellation, and changes nothing."""
    scene = Scene(plan_of(a=step(), b=step("a")))
    scene.send(event_of())
    (attempt,) = scene.dispatcher.take().starts
    large = AttemptEnded(0, 1, Outcome(b'"' + b"x" * 700_000 + b'"'))
    facts = [RunFact(attempt.record.run.id, fact) for fact in (large, CancelRequested())]
    list(scene.engine.steps(scene.batch(), [], facts, Undone(), Pieces(1)))
    assert scene.run.status is RunStatus.CANCELLED


def test_a_fact_is_folded_again_only_for_runs_that_lost_a_race() -> None:
    scene = Scene(plan_of(a=step(), b=step()))
    scene.send(event_of(id="one"), event_of(id="two"))
    one, two = scene.store.runs
    tried: list[list[str]] = []

    class Racing(MemoryBatch):
        def commit(self, transitions: Sequence[Transition]) -> Any:
            tried.append([transition.record.run.id for transition in transitions])
            if len(tried) == 1:
                scene.fold(two, AttemptEnded(1, 1, Outcome(b"2")))
            return super().commit(transitions)

    ends = [RunFact(run_id, AttemptEnded(0, 1, Outcome(b"1"))) for run_id in (one, two)]
    undone = scene.engine.process(Racing(scene.store, scene.now), [], ends)
    assert tried == [[one, two], [two]]
    assert scene.store.runs[two].outputs == {0: b"1", 1: b"2"}
    assert not undone


def test_a_run_that_cannot_be_written_is_redelivered_and_others_are_done() -> None:
    scene = Scene(plan_of())
    scene.send(event_of(id="one"), event_of(id="two"), event_of(id="three"))
    one, two, three = scene.store.runs

    class Refusing(MemoryBatch):
        def commit(self, transitions: Sequence[Transition]) -> Any:
            answers: list[RunRecord | NotWritten | None] = []
            for transition in transitions:
                is_two = transition.record.run.id == two
                answers += [NotWritten("throttled")] if is_two else super().commit([transition])
            return answers

    ends = [
        RunFact(run_id, AttemptEnded(0, 1, Outcome(b"1")), Cause(run_id, redelivered=False))
        for run_id in (one, two, three)
    ]
    assert scene.engine.process(Refusing(scene.store, scene.now), [], ends).causes == {two}
    statuses = [scene.store.runs[run_id].run.status for run_id in (one, two, three)]
    assert statuses == [RunStatus.COMPLETED, RunStatus.RUNNING, RunStatus.COMPLETED]


# --- reruns and replays ----------------------------------------------------------------------------------------------


def test_a_rerun_from_a_step_keeps_earlier_results() -> None:
    scene = Scene(plan_of(a=step(), b=step("a")))
    scene.send(event_of())
    for output in (1, 2):
        (attempt,) = scene.dispatcher.take().starts
        scene.end(attempt, output)
    scene.dispatcher.take()
    new_id = rerun(scene.engine, scene.batch(), scene.record, "token", restart=Restart("b"))
    assert new_id is not None
    assert scene.started() == ["b"]
    assert scene.store.runs[new_id].outputs == {0: b"1"}


def test_an_event_requested_twice_is_replayed_once() -> None:
    scene = Scene(plan_of("f", on="other"))
    scene.send(event_of(id="one"))
    done = replay_events(scene.engine, scene.batch(), scene.store.plans["f"], ["one", "one"], "r")
    assert [replayed.is_new for replayed in done] == [True, False]
    assert len({replayed.run_id for replayed in done}) == len(scene.store.runs) == 1


def test_another_replay_of_an_event_is_another_run() -> None:
    scene = Scene(plan_of())
    scene.send(event_of(id="one"))
    for replay in ("r1", "r2"):
        replay_events(scene.engine, scene.batch(), scene.store.plans["f"], ["one"], replay)
    assert [record.replay for record in scene.store.runs.values()] == [None, "r1", "r2"]


def test_an_event_sent_with_a_replay_is_stored_and_starts_nothing_else() -> None:
    scene = Scene(plan_of("f"), plan_of("g"))
    event: Event = event_of(id="new")
    (replayed,) = replay_events(scene.engine, scene.batch(), scene.store.plans["f"], [event], "r", MESSAGE)
    assert (scene.store.events["new"].replay, scene.store.events["new"].cause) == ("r", "m")
    assert list(scene.store.runs) == [replayed.run_id]


def test_a_replay_whose_event_cannot_be_written_is_not_reported_as_done() -> None:
    class Full(MemoryBatch):
        def put_events(self, events: Any) -> Any:
            return [NotWritten("full") for _ in events]

    scene = Scene(plan_of())
    with pytest.raises(NotWritten, match="full"):
        replay_events(scene.engine, Full(scene.store, NOW), scene.store.plans["f"], [event_of()], "r")
    assert scene.store.runs == {}


def test_a_replay_whose_run_cannot_be_written_is_not_reported_as_done() -> None:
    class Throttled(MemoryBatch):
        def commit(self, transitions: Sequence[Transition]) -> Any:
            return [NotWritten("throttled") for _ in transitions]

    scene = Scene(plan_of("f", on="other"))
    scene.send(event_of(id="one"))
    with pytest.raises(NotWritten):
        replay_events(scene.engine, Throttled(scene.store, NOW), scene.store.plans["f"], ["one"], "r", MESSAGE)
    assert scene.dispatcher.take().starts == []


def test_waits_of_a_replayed_run_only_find_events_after_the_replay() -> None:
    scene = Scene(plan_of(a=step({"step": "$trigger", "async": POSITIVE})))
    scene.send(event_of())
    scene.send(event_of("paid", "p", data={"n": 1}))
    scene.dispatcher.take()
    replay_events(scene.engine, scene.batch(), scene.store.plans["f"], ["e"], "r")
    assert scene.dispatcher.take().starts == []

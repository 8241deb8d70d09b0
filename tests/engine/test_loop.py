"""Tests the engine: what it stores, reads and starts, in which order, and how it handles errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pytest

from stepwell.core.run.messages import (
    AttemptEnded,
    AttemptStarted,
    CancelRequested,
    DeadlinePassed,
    Error,
    Outcome,
    RunStarted,
    Timer,
    TimerKind,
)
from stepwell.core.run.run import RunStatus, StepStatus, has_begun
from stepwell.engine.accept import resume
from stepwell.engine.replay import replay_events
from stepwell.engine.rerun import rerun
from stepwell.platform import Cause, DamagedRun, IncomingEvent, NewEvent, NotWritten, RunFact, RunRecord, Transition
from stepwell.testing.memory import MemoryBatch, MemoryStore
from tests.engine.scene import NOW, Scene, event_of, plan_of, step

MESSAGE, AGAIN = Cause("m", redelivered=False), Cause("m", redelivered=True)
TTL = 60_000
PAID: dict[str, Any] = {
    "step": "$trigger",
    "async": {"event": "paid", "ttl": "1m", "match": "async.data.n == event.data.n"},
}
LATE = {"step": "$trigger", "async": {**PAID["async"], "onTimeout": True}}


def waiting(match: str | None = "async.data.n == event.data.n") -> Any:
    wait = {"event": "paid", "ttl": "1m", **({} if match is None else {"match": match})}
    return plan_of(a=step({"step": "$trigger", "async": wait}))


# --- events start runs -----------------------------------------------------------------------------------------------


def test_an_event_starts_the_functions_with_a_trigger_for_it() -> None:
    scene = Scene(plan_of("f"), plan_of("g"), plan_of("h", on="other"))
    assert not scene.send(event_of())
    assert sorted(record.plan.function_id for record in scene.store.runs.values()) == ["f", "g"]
    assert scene.started() == ["a", "a"]


def test_a_tick_starts_one_function() -> None:
    scene = Scene(plan_of("f"), plan_of("g"))
    scene.engine.process(scene.batch(), [IncomingEvent(event_of("stepwell/scheduled.timer"), only="g")], [])
    assert scene.record.plan.function_id == "g"


def test_a_duplicate_event_starts_nothing() -> None:
    scene = Scene(plan_of())
    scene.send(event_of())
    scene.started()
    scene.send(event_of())
    assert scene.started() == []


def test_a_redelivered_event_starts_the_same_runs_again() -> None:
    scene = Scene(plan_of())
    scene.send(event_of(), cause=MESSAGE)
    assert scene.started() == ["a"]
    scene.send(event_of(), cause=AGAIN)
    assert scene.started() == ["a"], "nobody knows whether it was started before"
    scene.send(event_of(), cause=Cause("other", redelivered=True))
    assert scene.started() == []


def test_an_event_for_a_paused_function_is_stored_until_it_is_resumed() -> None:
    scene = Scene(plan_of("f"), plan_of("g"))
    scene.store.paused.add("f")
    scene.send(event_of())
    assert scene.record.plan.function_id == "g"
    (event,) = scene.store.held["f"]
    scene.store.paused.clear()
    batch = scene.batch()
    scene.engine.process(batch, [], resume(batch, "f", [event], None))
    assert sorted(record.plan.function_id for record in scene.store.runs.values()) == ["f", "g"]


def test_an_event_whose_user_was_erased_during_the_pause_starts_nothing() -> None:
    scene = Scene(plan_of("f"))
    batch = scene.batch()
    assert resume(batch, "f", [event_of(erased=True).at_position(1)], None) == []


def test_an_event_that_cannot_be_stored_for_a_paused_function_is_redelivered() -> None:
    class Failing(MemoryBatch):
        def hold(self, function_id: str, event: Any) -> bool:
            return False

    scene = Scene(plan_of())
    scene.store.paused.add("f")
    undone = scene.engine.process(Failing(scene.store, NOW), [IncomingEvent(event_of(), cause=MESSAGE)], [])
    assert undone.causes == {"m"}


def test_the_first_of_two_events_with_the_same_value_counts() -> None:
    scene = Scene(plan_of(fields={"idempotency": "event.data.order"}))
    scene.send(event_of(id="one", data={"order": 1}), event_of(id="two", data={"order": 1}))
    assert scene.record.event.id == "one"
    (miss,) = scene.store.events["two"].not_started
    assert miss.run_id == scene.run.id


# --- waits -----------------------------------------------------------------------------------------------------------


def test_an_event_wakes_the_runs_that_wait_for_it() -> None:
    scene = Scene(waiting())
    scene.send(event_of(data={"n": 1}))
    scene.send(event_of("paid", "p1", data={"n": 2}))
    assert scene.started() == []
    scene.send(event_of("paid", "p2", data={"n": 1}))
    assert scene.started() == ["a"]


class Between(MemoryBatch):
    """Others do something just before, or just after, this batch commits or stores events."""

    def __init__(self, scene: Scene, **hooks: Callable[[], object]) -> None:
        super().__init__(scene.store, scene.now)
        self._hooks = hooks

    def _run(self, name: str) -> None:
        hook = self._hooks.pop(name, None)
        if hook is not None:
            hook()

    def commit(self, transitions: Sequence[Transition]) -> Sequence[RunRecord | NotWritten | None]:
        self._run("before_commit")
        answers = super().commit(transitions)
        self._run("after_commit")
        return answers

    def put_events(self, events: Any) -> Any:
        self._run("before_events")
        answers = super().put_events(events)
        self._run("after_events")
        return answers


@pytest.mark.parametrize("when", ["before_commit", "after_commit"])
def test_an_event_accepted_while_a_wait_is_stored_is_found(when: str) -> None:
    """It is looked up after the wait is stored: whoever stores an event later finds the wait."""
    scene = Scene(waiting())
    paid = event_of("paid", "p", data={"n": 1})
    batch = Between(scene, **{when: lambda: scene.send(paid)})
    scene.engine.process(batch, [IncomingEvent(event_of(data={"n": 1}))], [])
    assert scene.run.pauses[0].event_id == "p"
    assert scene.started() == ["a"]


@pytest.mark.parametrize("when", ["before_events", "after_events"])
def test_a_wait_that_is_stored_while_an_event_is_accepted_gets_it(when: str) -> None:
    scene = Scene(waiting())
    begin = event_of(data={"n": 1})
    batch = Between(scene, **{when: lambda: scene.send(begin)})
    scene.engine.process(batch, [IncomingEvent(event_of("paid", "p", data={"n": 1}))], [])
    is_later = when == "before_events"  # else it came before the event that started the run
    assert (scene.run.pauses[0].event_id == "p") == is_later


def test_an_event_from_before_the_run_satisfies_no_wait() -> None:
    scene = Scene(waiting())
    scene.send(event_of("paid", "p", data={"n": 1}), event_of(data={"n": 1}))
    assert scene.started() == []


@pytest.mark.parametrize(("late_ms", "is_in_time"), [(-1, True), (0, False), (1, False)])
def test_an_event_exactly_at_the_deadline_is_too_late(late_ms: int, is_in_time: bool) -> None:
    scene = Scene(waiting())
    scene.send(event_of(data={"n": 1}))
    scene.now += TTL + late_ms
    scene.send(event_of("paid", "p", data={"n": 1}))
    assert (scene.started() == ["a"]) == is_in_time


@pytest.mark.parametrize(("late_ms", "is_in_time"), [(-1, True), (0, False), (1, False)])
def test_events_are_searched_once_more_at_the_deadline(late_ms: int, is_in_time: bool) -> None:
    """As after a crash between storing the event and searching for waits."""
    scene = Scene(plan_of(a=step(PAID), b=step(LATE)))
    scene.send(event_of(data={"n": 1}))
    scene.now += TTL + late_ms
    lost, paid = scene.batch(), event_of("paid", "p", data={"n": 1})
    lost.put_events([NewEvent(paid, lost.catalog().keys(paid), (), ())])
    scene.now = NOW + TTL
    scene.fold(scene.run.id, DeadlinePassed(0))
    assert (scene.run.pauses[0].event_id == "p") == is_in_time


def test_a_replayed_event_wakes_no_run() -> None:
    scene = Scene(waiting(), plan_of("g", on="paid"))
    scene.send(event_of(data={"n": 1}))
    scene.started()
    replay_events(scene.engine, scene.batch(), scene.store.plans["g"], [event_of("paid", "p", data={"n": 1})], "r")
    assert [record.plan.function_id for record in scene.store.runs.values()] == ["f", "g"]
    assert next(iter(scene.store.runs.values())).run.pauses[0].event_id is None


# --- slots -----------------------------------------------------------------------------------------------------------


def test_an_attempt_without_a_slot_is_queued_and_claimed_later() -> None:
    scene = Scene(plan_of(), programs=1)
    scene.send(event_of(id="one"), event_of(id="two"))
    effects = scene.dispatcher.take()
    assert (len(effects.starts), len(effects.queued)) == (1, 1)
    scene.claim(effects.queued[0].record.run.id, 0)
    assert len(scene.dispatcher.take().starts) == 1


def test_a_cancelled_attempt_from_the_queue_returns_its_slot() -> None:
    scene = Scene(plan_of(), programs=0)
    scene.send(event_of())
    scene.dispatcher.take()
    scene.fold(scene.run.id, CancelRequested())
    scene.claim(scene.run.id, 0)
    effects = scene.dispatcher.take()
    assert (effects.starts, effects.released) == ([], [(scene.run.id, 0, 1)])


def test_a_claim_cancelled_in_the_same_batch_returns_its_slot() -> None:
    scene = Scene(plan_of(), programs=0)
    scene.send(event_of())
    scene.dispatcher.take()
    scene.fold(scene.run.id, AttemptStarted(0, 1), CancelRequested())
    effects = scene.dispatcher.take()
    assert (effects.starts, effects.released) == ([], [(scene.run.id, 0, 1)])
    assert scene.run.status is RunStatus.CANCELLED


def test_a_claim_of_a_deleted_run_returns_its_slot() -> None:
    scene = Scene(plan_of())
    scene.claim("gone", 0)
    assert scene.dispatcher.take().released == [("gone", 0, 1)]


def test_an_input_that_is_too_large_fails_the_step_and_returns_its_slot() -> None:
    scene = Scene(plan_of(a=step(), b=step("a")), programs=0)
    scene.send(event_of())
    scene.dispatcher.take()
    scene.claim(scene.run.id, 0)
    (attempt,) = scene.dispatcher.take().starts
    scene.end(attempt, "x" * 700_000)
    scene.dispatcher.take()
    scene.claim(scene.run.id, 1)
    effects = scene.dispatcher.take()
    assert (effects.starts, effects.released) == ([], [(scene.run.id, 1, 1)])
    assert scene.run.status is RunStatus.FAILED
    assert orjson.loads(scene.record.errors[1])["kind"] == "input_too_large"


# --- errors ----------------------------------------------------------------------------------------------------------


def damaged(programs: int = 1000) -> tuple[Scene, str]:
    """A run in which `b` is running, and whose next fact cannot be folded: a condition after `b` reads the output of
    `a`, which is not JSON, as after a disk error."""
    scene = Scene(plan_of(a=step(), b=step("a"), c=step({"step": "b", "if": "steps.a.x == 1"}), d=step("a")))
    scene.send(event_of())
    (attempt,) = scene.dispatcher.take().starts
    scene.fold(scene.run.id, AttemptEnded(attempt.step, 1, Outcome(b"{")))
    scene.dispatcher.take()
    return scene, scene.run.id


def test_facts_that_cannot_be_folded_are_returned_and_change_nothing() -> None:
    scene, run_id = damaged()
    before = scene.record
    undone = scene.fold(run_id, AttemptEnded(1, 1, Outcome(b"1")))
    assert undone.facts == [RunFact(run_id, AttemptEnded(1, 1, Outcome(b"1")))]
    assert scene.record is before
    assert before.outputs == {0: b"{"}
    effects = scene.dispatcher.take()
    assert (effects.starts, effects.events) == ([], [])


def test_the_message_of_a_fact_that_cannot_be_folded_is_redelivered() -> None:
    scene, run_id = damaged()
    undone = scene.fold(run_id, AttemptEnded(1, 1, Outcome(b"1")), cause=MESSAGE)
    assert (undone.causes, undone.facts) == ({"m"}, [])
    assert scene.record.causes == {}


def test_a_run_with_an_error_does_not_delay_others() -> None:
    scene, run_id = damaged()
    scene.send(event_of(id="other"))
    other = next(run for run in scene.store.runs if run != run_id)
    scene.dispatcher.take()
    ends = [RunFact(run, AttemptEnded(step, 1, Outcome(b"1"))) for run, step in ((run_id, 1), (other, 0))]
    undone = scene.engine.process(scene.batch(), [], ends)
    assert [fact.run_id for fact in undone.facts] == [run_id]
    assert scene.store.runs[other].run.steps[0].status is StepStatus.COMPLETED


def test_the_slot_of_a_claim_that_cannot_be_folded_is_returned() -> None:
    scene, run_id = damaged()
    facts = AttemptStarted(3, 1), AttemptEnded(1, 1, Outcome(b"1"))
    undone = scene.fold(run_id, *facts)
    assert scene.dispatcher.take().released == [(run_id, 3, 1)]
    assert [fact.fact for fact in undone.facts] == list(facts)


class Unreadable(MemoryBatch):
    """A store that cannot read one of the runs."""

    def __init__(self, store: MemoryStore, run_id: str, method: str) -> None:
        super().__init__(store, NOW)
        self._run_id, self._method = run_id, method

    def load(self, run_ids: Any) -> dict[str, RunRecord]:
        wanted = list(run_ids)
        if self._method == "load" and self._run_id in wanted:
            raise DamagedRun("the row is damaged")
        if self._method == "disk" and wanted:
            raise OSError("the disk cannot be read")
        return super().load(wanted)

    def pending_outcomes(self, record: RunRecord) -> Any:
        if self._method == "pending_outcomes":
            raise OSError("the rows are damaged")
        return super().pending_outcomes(record)


@pytest.mark.parametrize("method", ["load", "pending_outcomes"])
def test_facts_of_a_run_that_cannot_be_read_are_returned(method: str, caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(plan_of())
    scene.send(event_of())
    run_id = scene.run.id
    fact = RunFact(run_id, CancelRequested())
    assert scene.engine.process(Unreadable(scene.store, run_id, method), [], [fact]).facts == [fact]
    assert scene.run.status is RunStatus.RUNNING
    words = {"load": "cannot be read", "pending_outcomes": "cannot be folded, facts put aside"}
    assert f"run {run_id} {words[method]}" in caplog.messages
    assert ("some of 1 runs cannot be read" in caplog.messages) == (method == "load")


def test_a_read_error_fails_the_batch_unless_its_messages_are_redelivered() -> None:
    scene = Scene(plan_of())
    scene.send(event_of())
    fact = RunFact(scene.run.id, CancelRequested())
    with pytest.raises(OSError, match="disk"):
        scene.engine.process(Unreadable(scene.store, "", "disk"), [], [fact])
    delivered = fact._replace(cause=MESSAGE)
    with pytest.raises(OSError, match="disk"):
        scene.engine.process(Unreadable(scene.store, "", "disk"), [], [delivered, fact])
    assert scene.engine.process(Unreadable(scene.store, "", "disk"), [], [delivered]).causes == {"m"}


def test_an_event_whose_waits_cannot_be_read_stays_undone() -> None:
    scene = Scene(waiting())
    scene.send(event_of(data={"n": 1}))
    paid = IncomingEvent(event_of("paid", "p", data={"n": 1}))
    with pytest.raises(OSError, match="disk"):
        scene.engine.process(Unreadable(scene.store, "", "disk"), [paid], [])


def test_a_message_that_wakes_runs_is_redelivered_if_one_cannot_be_read() -> None:
    scene = Scene(waiting())
    scene.send(event_of(data={"n": 1}))
    paid = event_of("paid", "p", data={"n": 1}).at_position(2)
    waits = scene.batch().find_waits(paid, scene.batch().catalog().keys(paid)).waits
    (fact,) = scene.engine.wake(scene.batch(), paid, waits, MESSAGE)
    assert fact.cause == MESSAGE
    with pytest.raises(NotWritten):
        scene.engine.wake(Unreadable(scene.store, scene.run.id, "load"), paid, waits, MESSAGE)


def test_a_new_run_whose_start_cannot_be_folded_is_stored_and_starts_later() -> None:
    scene = Scene(plan_of())
    batch = Unreadable(scene.store, "", "pending_outcomes")
    undone = scene.engine.process(batch, [IncomingEvent(event_of())], [])
    assert [fact.fact for fact in undone.facts] == [RunStarted()]
    assert not has_begun(scene.run)
    assert not scene.engine.process(scene.batch(), [], undone.facts)
    assert scene.started() == ["a"]


def test_the_loser_of_a_race_folds_into_the_current_record() -> None:
    scene = Scene(plan_of(a=step(), b=step()))
    scene.send(event_of())
    run_id = scene.run.id
    batch = Between(scene, before_commit=lambda: scene.fold(run_id, AttemptEnded(1, 1, Outcome(b"2"))))
    scene.engine.process(batch, [], [RunFact(run_id, AttemptEnded(0, 1, Outcome(b"1")))])
    assert scene.record.outputs == {0: b"1", 1: b"2"}
    assert scene.run.status is RunStatus.COMPLETED


def test_attempts_start_only_after_the_commit() -> None:
    scene = Scene(plan_of())

    class Refusing(MemoryBatch):
        def commit(self, transitions: Sequence[Transition]) -> Sequence[RunRecord | NotWritten | None]:
            assert scene.dispatcher.effects.starts == []
            return [NotWritten("throttled") for _ in transitions]

    undone = scene.engine.process(Refusing(scene.store, NOW), [IncomingEvent(event_of(), cause=MESSAGE)], [])
    assert undone.causes == {"m"}
    assert scene.started() == []


def test_all_messages_of_a_run_are_redelivered(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(plan_of(a=step(), b=step()))
    scene.send(event_of())

    class Refusing(MemoryBatch):
        def commit(self, transitions: Sequence[Transition]) -> Sequence[RunRecord | NotWritten | None]:
            return [NotWritten("throttled") for _ in transitions]

    ends = [RunFact(scene.run.id, AttemptEnded(i, 1, Outcome(b"1")), Cause(f"m{i}", redelivered=False)) for i in (0, 1)]
    assert scene.engine.process(Refusing(scene.store, NOW), [], ends).causes == {"m0", "m1"}
    assert f"run {scene.run.id} was not written, to be tried again: throttled" in caplog.messages


# --- timers, reruns, replays -----------------------------------------------------------------------------------------


def test_a_retry_is_due_when_its_timer_says() -> None:
    scene = Scene(plan_of(a=step(retries={"attempts": 2})))
    scene.send(event_of())
    (attempt,) = scene.dispatcher.take().starts
    scene.fold(scene.run.id, AttemptEnded(attempt.step, 1, Outcome(error=Error("exit", "exit code 1"))))
    ((run_id, timer),) = scene.store.timers
    assert (run_id, timer.kind) == (scene.run.id, TimerKind.RETRY)
    scene.now = scene.store.timers[run_id, timer]
    scene.engine.process(scene.batch(), [], scene.store.take_due(scene.now))
    (again,) = scene.dispatcher.take().starts
    assert again.attempt == 2


def test_a_missing_decision_fails_the_step_at_the_timeout() -> None:
    approval = {"runtime": {"type": "approval", "message": "Really?"}, "timeout": "1h", "after": [{"step": "$trigger"}]}
    scene = Scene(plan_of(a=approval))
    scene.send(event_of())
    assert [event.event.name for event in scene.dispatcher.take().events] == ["stepwell/approval.requested"]
    due = scene.store.timers[scene.run.id, Timer(TimerKind.DECISION, 0, 1)]
    assert due == NOW + 3_600_000
    scene.engine.process(scene.batch(), [], scene.store.take_due(due))
    assert orjson.loads(scene.record.errors[0])["kind"] == "approval_timeout"


def test_a_rerun_is_a_new_run_of_the_same_event_on_the_live_version() -> None:
    scene = Scene(plan_of())
    scene.send(event_of())
    first = scene.record
    new_id = rerun(scene.engine, scene.batch(), first, "token")
    assert new_id is not None
    assert scene.store.runs[new_id].rerun_of == first.run.id
    scene.store.plans.clear()
    assert rerun(scene.engine, scene.batch(), first, "other") is None


def test_a_replay_runs_each_event_once() -> None:
    scene = Scene(plan_of("f", on="other"))
    scene.send(event_of(id="one"), event_of(id="two"))
    for is_new in (True, False):
        done = replay_events(scene.engine, scene.batch(), scene.store.plans["f"], ["one", "two", "gone"], "r")
        assert [(replayed.event_id, replayed.is_new) for replayed in done] == [
            ("one", is_new),
            ("two", is_new),
            ("gone", False),
        ]
        assert done[2].run_id is None
    assert len(scene.store.runs) == 2


def test_an_event_of_an_erased_user_is_not_replayed() -> None:
    scene = Scene(plan_of("f", on="other"))
    scene.send(event_of(id="one", erased=True))
    (replayed,) = replay_events(scene.engine, scene.batch(), scene.store.plans["f"], ["one"], "r")
    assert (replayed.run_id, replayed.is_new) == (None, False)


def test_a_rerun_that_cannot_be_written_is_not_reported_as_done() -> None:
    scene = Scene(plan_of())
    scene.send(event_of())
    with pytest.raises(NotWritten):
        rerun(scene.engine, Unreadable(scene.store, "", "pending_outcomes"), scene.record, "token")

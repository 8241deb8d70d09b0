"""Tests the effects of a committed transition: attempts with inputs, queued and stopped attempts, and events."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from stepwell.core.events.events import Invalid
from stepwell.core.run.inputs import MAX_INPUT_BYTES
from stepwell.core.run.messages import (
    AttemptEnded,
    AttemptLost,
    AttemptStarted,
    CancelRequested,
    Error,
    Outcome,
    RunStarted,
)
from stepwell.core.run.run import EdgeStatus, RunStatus, StepState, StepStatus, new_run
from stepwell.engine.effects import events_for_inputs
from stepwell.engine.fold import fold
from stepwell.engine.loop import Engine
from stepwell.engine.replay import replay_events
from stepwell.engine.rerun import rerun
from stepwell.platform import Cause, FreeSlots, IncomingEvent, RunFact, RunRecord, Transition
from stepwell.testing.memory import MemoryBatch
from tests.engine.scene import LINKS, NOW, Scene, event_of, plan_of, step

FREE = FreeSlots(1000, 1000)
MESSAGE, OTHER = Cause("m", redelivered=False), Cause("n", redelivered=False)
APPROVAL: dict[str, Any] = {
    "runtime": {"type": "approval", "message": "Really?"},
    "timeout": "1h",
    "after": [{"step": "$trigger"}],
}
EMIT: dict[str, Any] = {"runtime": {"type": "emit", "event": "told", "data": "{'n': data.n}"}, "after": [{"step": "a"}]}
PAID = {"step": "$trigger", "async": {"event": "paid", "ttl": "1m"}}


def inputs(scene: Scene) -> list[Any]:
    return [orjson.loads(attempt.input) for attempt in scene.dispatcher.take().starts]


# --- inputs ----------------------------------------------------------------------------------------------------------


def test_the_input_of_a_step_has_the_event_earlier_results_and_context() -> None:
    scene = Scene(plan_of(a=step(), b=step({"step": "a", "on": "always"}), c=step("b")))
    scene.send(event_of(data={"n": 1}))
    scene.fold(scene.run.id, AttemptEnded(0, 1, Outcome(error=Error("exit", "exit code 1"), retryable=False)))
    scene.fold(scene.run.id, AttemptEnded(1, 1, Outcome(b'{"x":2}')))
    seen = inputs(scene)[2]
    assert seen["event"] == event_of(data={"n": 1}).as_json()
    assert (seen["steps"], seen["errors"]["a"]["kind"], seen["async"]) == ({"b": {"x": 2}}, "exit", None)
    assert seen["ctx"] == {
        "function_id": "f",
        "function_version": 1,
        "run_id": scene.run.id,
        "step_id": "c",
        "attempt": 1,
        "idempotency_key": f"{scene.run.id}/c",
        "env": "test",
        "async_events": [],
    }


def test_the_input_of_a_step_has_the_events_that_its_edges_waited_for() -> None:
    refunded = {"step": "$trigger", "async": {"event": "refunded", "ttl": "1m"}}
    scene = Scene(plan_of(a=step(PAID, refunded), b=step()))
    scene.send(event_of())
    assert [seen["ctx"]["async_events"] for seen in inputs(scene)] == [[]], "`b` waits for nothing"
    scene.send(event_of("refunded", "r", data={"n": 1}))
    scene.send(event_of("paid", "p", data={"n": 2}))
    (seen,) = inputs(scene)
    assert [event["id"] for event in seen["ctx"]["async_events"]] == ["r", "p"]
    assert seen["async"]["data"] == {"n": 1}


def test_inputs_and_end_event_of_a_replayed_run_have_the_replay_id() -> None:
    scene = Scene(plan_of())
    scene.send(event_of())
    scene.dispatcher.take()
    replay_events(scene.engine, scene.batch(), scene.store.plans["f"], ["e"], "rp_1")
    (attempt,) = scene.dispatcher.take().starts
    assert orjson.loads(attempt.input)["ctx"]["replay"] == "rp_1"
    scene.end(attempt)
    (sent,) = scene.dispatcher.take().events
    assert sent.event.data["replay"] == "rp_1"


def second_input(output: str) -> tuple[Scene, list[int]]:
    """The scene, and the size of the input of `b` if `a` has this output."""
    scene = Scene(plan_of(a=step(), b=step("a")))
    scene.send(event_of())
    (attempt,) = scene.dispatcher.take().starts
    scene.end(attempt, output)
    return scene, [len(attempt.input) for attempt in scene.dispatcher.take().starts]


def test_the_size_of_an_input_is_limited_exactly() -> None:
    _, (rest,) = second_input("")
    _, sizes = second_input("x" * (MAX_INPUT_BYTES - rest))
    assert sizes == [MAX_INPUT_BYTES]
    scene, sizes = second_input("x" * (MAX_INPUT_BYTES - rest + 1))
    assert (sizes, scene.run.status) == ([], RunStatus.FAILED)


def test_a_step_whose_input_is_too_large_is_not_retried() -> None:
    scene = Scene(plan_of(a=step(), b=step("a", retries={"attempts": 3})))
    scene.send(event_of())
    (attempt,) = scene.dispatcher.take().starts
    scene.end(attempt, "x" * MAX_INPUT_BYTES, cause=MESSAGE)
    assert scene.run.steps[1].status is StepStatus.FAILED
    assert scene.run.steps[1].attempt == 1
    message = orjson.loads(scene.record.errors[1])["message"]
    assert "the step's input is 655," in message
    assert "more than 655,360" in message


def test_a_step_whose_input_cannot_be_read_fails_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Lost(dict[int, bytes]):
        """The outputs in a store in which a row was deleted."""

        def __getitem__(self, step: int) -> bytes:
            raise KeyError(step)

        def __or__(self, other: Any) -> Any:
            return Lost({**dict(self.items()), **other})

    scene = Scene(plan_of(a=step(), b=step({"step": "a", "wait": "1s"}, retries={"attempts": 3})), programs=5)
    scene.send(event_of())
    (attempt,) = scene.dispatcher.take().starts
    scene.end(attempt, 1)
    record = scene.record
    lost = RunRecord(record.run, record.plan, record.event, record.after, outputs=Lost({0: b"1"}))
    scene.store.runs[record.run.id] = lost
    scene.engine.process(scene.batch(), [], scene.store.take_due(NOW + 1000))
    assert scene.dispatcher.take().starts == []
    assert orjson.loads(scene.record.errors[1])["kind"] == "input_lost"
    assert scene.run.status is RunStatus.FAILED
    assert f"an output of run {scene.run.id} is missing" in caplog.text


def test_events_for_inputs_are_read_only_for_claimed_attempts() -> None:
    plan = plan_of(a=step(PAID), b=step())
    scene = Scene(plan)
    scene.send(event_of())
    before = scene.record
    running = fold(before, [RunFact(before.run.id, AttemptEnded(1, 1, Outcome(b"1")))], NOW, FreeSlots(1, 1))
    assert events_for_inputs(running) == []
    scene.send(event_of("paid", "p"))
    claimed: list[Transition] = []

    class Noting(MemoryBatch):
        def commit(self, transitions: Any) -> Any:
            claimed.extend(transitions)
            return super().commit(transitions)

    other = Scene(plan)
    other.send(event_of())
    other.engine.process(Noting(other.store, NOW), [IncomingEvent(event_of("paid", "p"))], [])
    (transition,) = [transition for transition in claimed if transition.claims]
    assert events_for_inputs(transition) == ["p"]
    waiting_for_nothing = new_run("r", plan_of(), NOW)
    record = RunRecord(waiting_for_nothing, plan_of(), before.event, 1)
    assert events_for_inputs(fold(record, [RunFact("r", RunStarted())], NOW, FreeSlots(1, 1))) == []


def test_a_step_that_sends_approval_links_gets_them_with_signatures() -> None:
    """Stores contain the links without signatures."""
    scene = Scene(plan_of("asks", a=APPROVAL), plan_of("sends", on="stepwell/approval.requested"))
    scene.send(event_of())
    (sent,) = scene.dispatcher.take().events
    url = sent.event.data["approve_url"]
    cut = {**sent.event.data, "approve_url": url[:-32], "decline_url": sent.event.data["decline_url"][:-32]}
    batch = scene.batch()
    stored = event_of("stepwell/approval.requested", "again", data=cut)
    scene.engine.process(batch, [IncomingEvent(stored)], [])
    (seen,) = inputs(scene)
    assert seen["event"]["data"]["approve_url"] == url
    assert LINKS.read(url.rpartition("/")[2]) is not None


# --- approvals -------------------------------------------------------------------------------------------------------


def test_an_approval_is_requested_once_with_the_message_that_caused_it() -> None:
    scene = Scene(plan_of(a=APPROVAL))
    scene.send(event_of(), cause=MESSAGE)
    effects = scene.dispatcher.take()
    assert effects.starts == []
    (sent,) = effects.events
    assert (sent.event.name, sent.cause) == ("stepwell/approval.requested", MESSAGE)
    assert (sent.event.data["message"], sent.event.data["run_id"]) == ("Really?", scene.run.id)
    assert scene.run.steps[0].status is StepStatus.RUNNING


def test_an_approval_whose_message_has_no_value_fails_without_a_request() -> None:
    runtime = {"type": "approval", "message": "Pay {{ event.data.sum }}?"}
    scene = Scene(plan_of(a={**APPROVAL, "runtime": runtime}))
    scene.send(event_of())
    effects = scene.dispatcher.take()
    assert [sent.event.name for sent in effects.events] == ["stepwell/run.failed"]
    assert orjson.loads(scene.record.errors[0])["kind"] == "message_failed"


def test_a_function_started_by_an_approval_request_sends_no_request() -> None:
    scene = Scene(plan_of("asks", on="stepwell/approval.requested", a=APPROVAL))
    scene.send(event_of("stepwell/approval.requested", data={"approve_url": "u", "decline_url": "u"}))
    assert scene.dispatcher.take().events == []
    assert scene.run.steps[0].status is StepStatus.RUNNING


# --- slots, stops, ends ----------------------------------------------------------------------------------------------


def test_an_attempt_without_a_slot_is_queued_unless_the_run_is_cancelled_in_the_same_batch() -> None:
    scene = Scene(plan_of(a=step(), b=step()), programs=0)
    scene.send(event_of())
    assert [(queued.step, queued.attempt) for queued in scene.dispatcher.take().queued] == [(0, 1), (1, 1)]
    batch = scene.batch()
    event = scene.store.events["e"].event
    batch.add(RunRecord(new_run("r", scene.store.plans["f"], NOW), scene.store.plans["f"], event, event.position))
    scene.engine.process(batch, [], [RunFact("r", fact) for fact in (RunStarted(), CancelRequested())])
    effects = scene.dispatcher.take()
    assert (effects.queued, effects.starts) == ([], [])
    assert scene.store.runs["r"].run.status is RunStatus.CANCELLED


def test_an_attempt_is_queued_under_the_latest_number_of_the_batch() -> None:
    scene = Scene(plan_of(a=step(retries={"attempts": 2})), programs=1)
    scene.send(event_of())
    scene.dispatcher.take()
    scene.dispatcher.free = FreeSlots(0, 0)
    scene.fold(scene.run.id, AttemptLost(0, 1), AttemptStarted(0, 2), AttemptLost(0, 2))
    queued = [(queued.step, queued.attempt) for queued in scene.dispatcher.take().queued]
    assert queued == [(0, 3)]


def test_an_attempt_claimed_and_lost_in_the_same_batch_does_not_start() -> None:
    scene = Scene(plan_of(), programs=1)
    scene.send(event_of())
    (attempt,) = scene.dispatcher.take().starts
    scene.dispatcher.free = FreeSlots(0, 0)
    scene.fold(attempt.record.run.id, AttemptLost(0, 1), AttemptStarted(0, 2), CancelRequested())
    effects = scene.dispatcher.take()
    assert (effects.starts, effects.released) == ([], [(scene.run.id, 0, 2)])
    assert effects.stops == [(scene.run.id, 0, 2)]


def test_running_attempts_of_a_cancelled_run_are_stopped_and_the_end_event_is_sent() -> None:
    scene = Scene(plan_of(a=step(), b=step()))
    scene.send(event_of())
    scene.dispatcher.take()
    scene.engine.process(
        scene.batch(), [], [RunFact(scene.run.id, AttemptEnded(0, 1, Outcome(b"1")), MESSAGE),
                            RunFact(scene.run.id, CancelRequested(), OTHER)]
    )  # fmt: skip
    effects = scene.dispatcher.take()
    assert effects.stops == [(scene.run.id, 1, 1)]
    (sent,) = effects.events
    assert (sent.event.name, sent.event.ts, sent.cause) == ("stepwell/run.cancelled", NOW, OTHER)


def test_a_run_started_by_the_end_of_a_run_sends_no_end_event() -> None:
    scene = Scene(plan_of("f", on="stepwell/run.completed"))
    scene.send(event_of("stepwell/run.completed"))
    (attempt,) = scene.dispatcher.take().starts
    scene.end(attempt)
    assert scene.run.status is RunStatus.COMPLETED
    assert scene.dispatcher.take().events == []


def test_a_rerun_runs_the_same_event_at_the_current_position() -> None:
    scene = Scene(plan_of(a=step(PAID)))
    scene.send(event_of())
    scene.send(event_of("paid", "p"))
    scene.dispatcher.take()
    first = next(iter(scene.store.runs.values()))
    new_id = rerun(scene.engine, scene.batch(), first, "token", MESSAGE)
    assert new_id is not None
    again = scene.store.runs[new_id]
    assert (again.event.id, again.after, again.rerun_of, again.run.created_at) == ("e", 2, first.run.id, NOW)
    assert scene.dispatcher.take().starts == [], "what came before it satisfies none of its waits"
    scene.send(event_of("paid", "p2"))
    assert [attempt.record.run.id for attempt in scene.dispatcher.take().starts] == [new_id]


def test_a_rerun_of_a_replayed_run_belongs_to_the_replay() -> None:
    scene = Scene(plan_of())
    scene.send(event_of())
    (replayed,) = replay_events(scene.engine, scene.batch(), scene.store.plans["f"], ["e"], "rp_1")
    assert replayed.run_id is not None
    new_id = rerun(scene.engine, scene.batch(), scene.store.runs[replayed.run_id], "token")
    assert new_id is not None
    assert scene.store.runs[new_id].replay == "rp_1"


def test_attempts_of_a_replay_are_claimed_by_its_message() -> None:
    scene = Scene(plan_of("f", on="other"))
    scene.send(event_of())
    again = Cause("m", redelivered=True)
    replay_events(scene.engine, scene.batch(), scene.store.plans["f"], ["e"], "r", MESSAGE)
    assert [attempt.cause for attempt in scene.dispatcher.take().starts] == [MESSAGE]
    assert scene.record.causes == {0: ("m", NOW)}
    replay_events(scene.engine, scene.batch(), scene.store.plans["f"], ["e"], "r", again)
    assert scene.dispatcher.take().starts == [], "what is there already does not start again"


# --- events of steps -------------------------------------------------------------------------------------------------


def test_a_step_sends_its_event_before_its_end_is_folded() -> None:
    """When the dispatcher gets the event, the stored step still runs. So a crash after that sends the event again."""
    scene = Scene(plan_of(a=step(), tell=EMIT))
    seen: list[StepStatus] = []
    carry_out = scene.dispatcher.carry_out

    def watched(effects: Any) -> Any:
        seen.extend(scene.run.steps[1].status for _ in effects.emitted)
        return carry_out(effects)

    scene.dispatcher.carry_out = watched  # type: ignore[method-assign]
    scene.send(event_of(data={"n": 3}))
    (start,) = scene.dispatcher.take().starts
    scene.end(start)
    (event,) = scene.dispatcher.take().emitted
    assert (event.event.name, event.event.data, event.event.id) == ("told", {"n": 3}, f"emit:{scene.run.id}:tell")
    assert seen == [StepStatus.RUNNING]
    assert scene.run.status is RunStatus.COMPLETED
    assert orjson.loads(scene.record.outputs[1]) == {"id": event.event.id}
    assert event.event.id in scene.store.events


def test_a_redelivered_message_sends_the_event_of_a_step_that_has_not_ended_again() -> None:
    scene = Scene(plan_of(a=step(), tell=EMIT))
    scene.send(event_of(data={"n": 3}))
    (start,) = scene.dispatcher.take().starts
    record = fold(scene.record, [RunFact(scene.run.id, AttemptEnded(0, 1, Outcome(b"1")), MESSAGE)], NOW, FREE).record
    scene.store.runs[scene.run.id] = record  # the process died when the claim was committed
    assert scene.run.steps[1].status is StepStatus.RUNNING
    for expected in (1, 0):  # not again when the step has ended
        scene.end(start, cause=Cause("m", redelivered=True))
        assert len(scene.dispatcher.take().emitted) == expected
    assert scene.run.status is RunStatus.COMPLETED


def test_a_lost_attempt_sends_the_same_event_again() -> None:
    scene = Scene(plan_of(a=step(), tell=EMIT))
    scene.send(event_of(data={"n": 3}))
    record = fold(scene.record, [RunFact(scene.run.id, AttemptEnded(0, 1, Outcome(b"1")))], NOW, FREE).record
    scene.store.runs[scene.run.id] = record
    scene.dispatcher.take()
    scene.fold(scene.run.id, AttemptLost(1, 1))
    (event,) = scene.dispatcher.take().emitted
    assert (event.event.id, scene.run.status) == (f"emit:{scene.run.id}:tell", RunStatus.COMPLETED)


def test_a_queued_step_that_got_a_slot_to_send_its_event_gives_it_back() -> None:
    scene = Scene(plan_of(a=step(), tell=EMIT))
    scene.send(event_of(data={"n": 3}))
    steps = (StepState(StepStatus.COMPLETED, 1), StepState(StepStatus.QUEUED, 1))
    run = scene.run._replace(steps=steps, edges=(EdgeStatus.SATISFIED, EdgeStatus.SATISFIED))
    scene.store.runs[scene.run.id] = replace(scene.record, run=run)
    scene.dispatcher.take()
    scene.claim(scene.run.id, 1)
    effects = scene.dispatcher.take()
    assert (len(effects.emitted), effects.released) == (1, [(scene.run.id, 1, 1)])


def test_an_event_that_is_refused_is_not_sent() -> None:
    scene = Scene(plan_of(tell={**EMIT, "after": [{"step": "$trigger"}]}))
    scene.engine = Engine(scene.dispatcher, "test", lambda: LINKS, lambda event: [Invalid("/data/n", "is 3")])
    scene.send(event_of(data={"n": 3}))
    assert (scene.dispatcher.take().emitted, scene.run.status) == ([], RunStatus.FAILED)
    error = orjson.loads(scene.record.errors[0])
    assert error["message"] == "the event told does not match its schema: /data/n: is 3"
    assert (error["kind"], error["output"]) == (
        "event_refused",
        {"errors": [{"pointer": "/data/n", "message": "is 3"}]},
    )

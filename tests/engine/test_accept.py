"""Tests the acceptance of events: which ones are accepted, what they start and wake, and the reports of events that do
not match their schemas."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from stepwell.core.events.events import Event, Invalid
from stepwell.core.run.run import RunStatus
from stepwell.engine.accept import resume
from stepwell.platform import Accepted, Cause, FoundWaits, IncomingEvent, NewEvent, NotWritten, RunRecord, WaitPlace
from stepwell.testing.memory import MemoryBatch
from tests.engine.scene import NOW, Scene, event_of, plan_of, step

MESSAGE = Cause("m", redelivered=False)
WAIT: dict[str, Any] = {
    "step": "$trigger",
    "async": {"event": "paid", "ttl": "1m", "match": "async.data.n == event.data.n"},
}
INVALID = (Invalid("/data/n", "is no number"), Invalid("/data/m", "is missing"))


def odd(**fields: Any) -> Event:
    """An event that does not match its schema."""
    return replace(event_of(**fields), invalid=INVALID)


# --- schemas ---------------------------------------------------------------------------------------------------------


def test_an_event_that_does_not_match_its_schema_is_accepted_and_reported() -> None:
    scene = Scene(plan_of())
    scene.send(odd(), cause=MESSAGE)
    effects = scene.dispatcher.take()
    assert len(effects.starts) == 1
    (report,) = effects.events
    assert (report.event.name, report.cause) == ("stepwell/event.invalid", MESSAGE)
    assert {**report.event.data, "errors": len(report.event.data["errors"])} == {
        "event_name": "go",
        "event_id": "e",
        "v": None,
        "policy": "warn",
        "errors": 2,
        "more_errors": 0,
    }
    assert report.event.id in scene.store.events, "functions can be started by it"


def test_an_event_that_matches_its_schema_is_not_reported() -> None:
    scene = Scene(plan_of())
    scene.send(event_of())
    assert scene.dispatcher.take().events == []


def test_a_duplicate_event_is_not_reported_again() -> None:
    scene = Scene(plan_of())
    scene.send(odd())
    scene.dispatcher.take()
    scene.send(odd())
    assert scene.dispatcher.take().events == []


def test_a_refused_event_is_reported_and_not_accepted() -> None:
    scene = Scene(plan_of())
    (report,) = scene.engine.refuse(event_of(), INVALID, NOW, MESSAGE)
    assert scene.dispatcher.take().events == [report]
    assert (report.event.data["policy"], report.event.ts, report.cause) == ("reject", NOW, MESSAGE)
    assert scene.store.events == {}


def test_the_log_contains_the_first_error_of_an_event(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(plan_of())
    with caplog.at_level(logging.WARNING, "stepwell.types"):
        scene.send(odd())
    (record,) = caplog.records
    assert "go e does not match the schema (warn): /data/n: is no number" in record.getMessage()
    assert record.__dict__["fields"] == {"event": "e", "name": "go", "v": None, "policy": "warn", "pointer": "/data/n"}


def test_the_log_contains_duplicate_events(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(plan_of())
    with caplog.at_level(logging.DEBUG, "stepwell.events"):
        scene.send(event_of())
        assert caplog.messages == []
        scene.send(event_of())
    assert caplog.messages == ["event go e was accepted before"]


# --- write errors ----------------------------------------------------------------------------------------------------


class Full(MemoryBatch):
    """A store whose disk has no room for one of the events."""

    def put_events(self, events: Sequence[NewEvent]) -> list[Accepted | NotWritten | None]:
        answers: list[Accepted | NotWritten | None] = []
        for new in events:
            answers += [NotWritten("full")] if new.event.id == "large" else super().put_events([new])
        return answers


def test_an_event_that_cannot_be_written_is_redelivered_and_delays_no_others(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(plan_of())
    events = [
        IncomingEvent(event_of(id=name), cause=Cause(f"message of {name}", redelivered=False))
        for name in ("one", "large", "two")
    ]
    undone = scene.engine.process(Full(scene.store, NOW), events, [])
    assert undone.causes == {"message of large"}
    assert caplog.messages == ["event large was not accepted, to be tried again: full"]
    assert [record.event.id for record in scene.store.runs.values()] == ["one", "two"]


def test_a_duplicate_event_does_not_delay_others() -> None:
    scene = Scene(plan_of())
    scene.send(event_of(id="known"))
    scene.send(event_of(id="known"), event_of(id="new"))
    assert [record.event.id for record in scene.store.runs.values()] == ["known", "new"]


class Throttled(MemoryBatch):
    """A store that cannot write the `idempotency` values of one function."""

    @property
    def checks(self) -> Any:
        return _ThrottledChecks(super().checks)


class _ThrottledChecks:
    def __init__(self, whole: Any) -> None:
        self.idempotency = _ThrottledIdempotency(whole.idempotency)


class _ThrottledIdempotency:
    def __init__(self, whole: Any) -> None:
        self._whole = whole

    def claim(self, function_id: str, value: bytes, run_id: str, position: int) -> str:
        if function_id == "g":
            raise NotWritten("throttled")
        counts: str = self._whole.claim(function_id, value, run_id, position)
        return counts


def test_an_event_whose_value_cannot_be_claimed_is_redelivered_after_starting_the_functions_before(
    caplog: pytest.LogCaptureFixture,
) -> None:
    once = {"idempotency": "event.data.order"}
    scene = Scene(plan_of("f", fields=once), plan_of("g", fields=once))
    event = IncomingEvent(event_of(data={"order": 1}), cause=MESSAGE)
    undone = scene.engine.process(Throttled(scene.store, NOW), [event], [])
    assert undone.causes == {"m"}
    assert caplog.messages == ["event e did not start all runs, to be tried again: throttled"]
    assert [record.plan.function_id for record in scene.store.runs.values()] == ["f"]


# --- starts ----------------------------------------------------------------------------------------------------------


def test_a_run_begins_at_the_position_of_its_event() -> None:
    scene = Scene(plan_of())
    scene.send(event_of("other", "first"), event_of())
    assert (scene.record.event.position, scene.record.after, scene.run.created_at) == (2, 2, NOW)


def test_functions_that_an_event_does_not_start_are_stored_with_it() -> None:
    plan = plan_of("f", fields={"triggers": [{"event": "go", "expression": "event.data.n == 1"}]})
    scene = Scene(plan, plan_of("g"))
    scene.send(event_of(data={"n": 2}))
    assert scene.record.plan.function_id == "g"
    assert [miss.function_id for miss in scene.store.events["e"].not_started] == ["f"]


def test_an_idempotency_value_of_one_function_does_not_affect_others() -> None:
    once = {"idempotency": "event.data.order"}
    scene = Scene(plan_of("f", fields=once), plan_of("g"), plan_of("h", fields=once))
    scene.send(event_of(id="one", data={"order": 1}))
    scene.send(event_of(id="two", data={"order": 1}))
    runs = [(record.plan.function_id, record.event.id) for record in scene.store.runs.values()]
    assert sorted(runs) == [("f", "one"), ("g", "one"), ("g", "two"), ("h", "one")]
    assert [miss.function_id for miss in scene.store.events["two"].not_started] == ["f", "h"]
    assert scene.store.events["one"].not_started == []


def test_an_event_without_an_idempotency_value_starts_a_run_with_a_problem() -> None:
    scene = Scene(plan_of(fields={"idempotency": "event.data.order"}))
    scene.send(event_of(id="one"), event_of(id="two"))
    for record in scene.store.runs.values():
        ((kind, index, problem),) = record.run.problems
        assert (kind, index, record.run.status) == ("idempotency", 0, RunStatus.RUNNING)
        assert "order" in problem
    assert len(scene.store.runs) == 2, "no value is no value that two events could share"


def test_paused_events_start_one_run_each_of_the_resumed_function_only() -> None:
    scene = Scene(plan_of("f"), plan_of("g"))
    scene.store.paused.add("f")
    scene.send(event_of(id="one"), event_of(id="two"), event_of(id="three"))
    scene.store.paused.clear()
    batch = scene.batch()
    one, two, three = scene.store.held["f"]
    facts = resume(batch, "f", [one, replace(two, erased=True), three], MESSAGE)
    scene.engine.process(batch, [], facts)
    started = [record.event.id for record in scene.store.runs.values() if record.plan.function_id == "f"]
    assert started == ["one", "three"], "not that of a user who was erased meanwhile"
    assert {fact.cause for fact in facts} == {MESSAGE}


def test_a_paused_function_does_not_delay_others_and_stores_the_event_once() -> None:
    scene = Scene(plan_of("f"), plan_of("g"), plan_of("h"))
    scene.store.paused |= {"f", "g"}
    scene.send(event_of())
    assert scene.record.plan.function_id == "h"
    assert {name: [event.position for event in held] for name, held in scene.store.held.items()} == {"f": [1], "g": [1]}


# --- waits -----------------------------------------------------------------------------------------------------------


class Counting(MemoryBatch):
    """A store that records for which events waits are searched."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene.store, scene.now)
        self.asked: list[str] = []

    def find_waits(self, event: Event, keys: Sequence[bytes], behind: WaitPlace | None = None) -> FoundWaits:
        self.asked.append(event.id)
        return super().find_waits(event, keys, behind)


def test_waits_are_searched_only_for_events_that_a_function_can_wait_for() -> None:
    scene = Scene(plan_of(a=step(WAIT)))
    batch = Counting(scene)
    events = [event_of(data={"n": 1}), event_of("paid", "p", data={"n": 2}), event_of("other", "o")]
    scene.engine.process(batch, [IncomingEvent(event) for event in events], [])
    assert batch.asked == ["p"]


def test_an_event_wakes_exactly_the_runs_that_wait_for_it() -> None:
    scene = Scene(plan_of(a=step(WAIT)))
    scene.send(*(event_of(id=f"e{number}", data={"n": number % 2}) for number in range(6)))
    scene.send(event_of("paid", "p", data={"n": 1}))
    woken = [attempt.record.event.id for attempt in scene.dispatcher.take().starts]
    assert woken == ["e1", "e3", "e5"]


def test_a_run_whose_wait_has_expired_does_not_delay_others() -> None:
    scene = Scene(plan_of(a=step(WAIT)))
    scene.send(event_of(id="early", data={"n": 1}))
    scene.now += 30_000
    scene.send(event_of(id="late", data={"n": 1}))
    scene.now += 30_000
    scene.send(event_of("paid", "p", data={"n": 1}))
    woken = [attempt.record.event.id for attempt in scene.dispatcher.take().starts]
    assert woken == ["late"]


def test_an_expired_wait_is_not_satisfied_when_another_wait_of_the_run_is() -> None:
    later = {**WAIT, "async": {**WAIT["async"], "ttl": "2m"}}
    scene = Scene(plan_of(a=step(WAIT), b=step(later)))
    scene.send(event_of(data={"n": 1}))
    scene.now += 60_000
    scene.send(event_of("paid", "p", data={"n": 1}))
    assert [pause.event_id for pause in scene.run.pauses] == [None, "p"]
    assert scene.started() == ["b"]


def test_a_run_is_not_woken_by_the_event_that_started_it() -> None:
    """Not even if the message is redelivered, and the event is processed again."""
    wait = {"step": "$trigger", "async": {"event": "go", "ttl": "1m"}}
    scene = Scene(plan_of(a=step(wait)))
    scene.send(event_of(), cause=MESSAGE)
    scene.send(event_of(), cause=Cause("m", redelivered=True))
    assert scene.started() == []
    scene.send(event_of(id="next"))
    assert scene.started() == ["a"]


def test_a_rerun_is_not_woken_by_its_own_event() -> None:
    """The event was accepted before the new run, and started it."""
    wait = {"step": "$trigger", "async": {"event": "go", "ttl": "1m"}}
    scene = Scene(plan_of(a=step(wait)))
    scene.send(event_of())
    record: RunRecord = scene.record
    again = scene.batch()
    waits = again.find_waits(record.event, ()).waits
    late = replace(record.event, position=record.event.position + 5)
    assert scene.engine.wake(again, late, waits, None) == []


def test_a_fact_that_wakes_a_run_has_the_message_of_the_event() -> None:
    scene = Scene(plan_of(a=step(WAIT)))
    scene.send(event_of(data={"n": 1}))
    scene.send(event_of("paid", "p", data={"n": 1}), cause=MESSAGE)
    (attempt,) = scene.dispatcher.take().starts
    assert attempt.cause == MESSAGE

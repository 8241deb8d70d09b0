"""Facts make a new record of a run; the record that was given stays as it was, whatever goes wrong."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from stepwell.core.run.messages import (
    AttemptEnded,
    AttemptPostponed,
    AttemptStarted,
    CancelRequested,
    Outcome,
    RunStarted,
    StopStep,
)
from stepwell.core.run.run import StepStatus, new_run
from stepwell.engine.fold import fold, slots_left
from stepwell.platform import Cause, Claim, FreeSlots, RunFact, RunRecord, Transition
from tests.engine.scene import NOW, event_of, plan_of, step

FREE, NONE = FreeSlots(1000, 1000), FreeSlots(0, 0)
MESSAGE, AGAIN = Cause("m", redelivered=False), Cause("m", redelivered=True)
HTTP = {"path": "", "runtime": {"type": "http", "url": "http://127.0.0.1/"}}
OK = Outcome(b"{}")


def new(**steps: Any) -> RunRecord:
    plan = plan_of(**steps)
    return RunRecord(new_run("r", plan, NOW), plan, event_of().at_position(1), 1)


def facts(*some: Any, cause: Cause | None = None) -> list[RunFact]:
    return [RunFact("r", fact, cause) for fact in some]


def begun(slots: FreeSlots = FREE, cause: Cause | None = None, **steps: Any) -> RunRecord:
    return fold(new(**steps), facts(RunStarted(), cause=cause), NOW, slots).record


def statuses(record: RunRecord) -> list[StepStatus]:
    return [state.status for state in record.run.steps]


def test_a_run_that_starts_claims_its_first_steps() -> None:
    transition = fold(new(), facts(RunStarted()), NOW, FREE)
    assert statuses(transition.record) == [StepStatus.RUNNING]
    assert transition.claims == [Claim(0, 1, None)]


def test_without_a_slot_an_attempt_stays_queued() -> None:
    transition = fold(new(), facts(RunStarted()), NOW, NONE)
    assert statuses(transition.record) == [StepStatus.QUEUED]
    assert transition.claims == []


def test_as_many_are_claimed_as_there_are_slots_programs_and_calls_by_themselves() -> None:
    steps = {"a": step(), "b": step(), "c": {**step(), **HTTP}, "d": {**step(), **HTTP}}
    transition = fold(new(**steps), facts(RunStarted()), NOW, FreeSlots(1, 1))
    running, queued = StepStatus.RUNNING, StepStatus.QUEUED
    assert statuses(transition.record) == [running, queued, running, queued]
    assert slots_left(FreeSlots(1, 1), transition) == (0, 0)


def test_people_take_no_slot() -> None:
    approval = {"runtime": {"type": "approval", "message": "Really?"}, "timeout": "1h", "after": [{"step": "$trigger"}]}
    transition = fold(new(a=approval), facts(RunStarted()), NOW, NONE)
    assert transition.claims == [Claim(0, 1, None)]
    assert slots_left(FREE, transition) == FREE


def test_the_record_that_is_given_stays_as_it_was() -> None:
    record = begun(cause=MESSAGE, a=step(), b=step("a"))
    before = copy.deepcopy((record.run, record.outputs, record.errors, record.causes))
    after = fold(record, facts(AttemptEnded(0, 1, Outcome(b"1")), cause=Cause("n", redelivered=False)), NOW, FREE)
    assert after.record.outputs == {0: b"1"}
    assert after.record.causes == {1: ("n", NOW)}
    assert (record.run, record.outputs, record.errors, record.causes) == before


def test_a_fact_that_changes_nothing_leaves_the_very_record() -> None:
    record = begun()
    assert fold(record, facts(RunStarted()), NOW, FREE).record is record


def test_facts_are_folded_in_their_order_before_anything_is_claimed() -> None:
    record = begun(a=step(), b=step("a"))
    transition = fold(record, facts(AttemptEnded(0, 1, OK), CancelRequested()), NOW, FREE)
    assert transition.claims == []
    assert statuses(transition.record) == [StepStatus.COMPLETED, StepStatus.CANCELLED]


def test_an_attempt_from_the_queue_holds_its_slot() -> None:
    record = begun(NONE)
    transition = fold(record, facts(AttemptStarted(0, 1)), NOW, NONE)
    assert transition.claims == [Claim(0, 1, None, holds_slot=True)]
    assert slots_left(NONE, transition) == NONE


def test_an_attempt_from_the_queue_that_needs_no_slot_any_more_is_said() -> None:
    record = begun(NONE)
    transition = fold(record, facts(CancelRequested(), AttemptStarted(0, 1)), NOW, FREE)
    assert (transition.claims, transition.unclaimed) == ([], [AttemptStarted(0, 1)])


def test_what_a_cancelled_run_has_running_is_stopped() -> None:
    transition = fold(begun(), facts(CancelRequested()), NOW, FREE)
    assert StopStep(0, 1) in transition.commands


def test_a_message_that_comes_again_claims_again_what_it_had_claimed() -> None:
    record = begun(cause=MESSAGE)
    assert fold(record, facts(RunStarted(), cause=AGAIN), NOW, FREE).claims == [Claim(0, 1, AGAIN)]
    assert fold(record, facts(RunStarted(), cause=MESSAGE), NOW, FREE).claims == []
    assert fold(record, facts(RunStarted(), cause=Cause("n", redelivered=True)), NOW, FREE).claims == []


def test_a_step_is_claimed_once_however_many_messages_ask_for_it() -> None:
    record = begun(NONE, cause=MESSAGE)
    again = [RunFact("r", RunStarted(), AGAIN), RunFact("r", RunStarted(), Cause("n", redelivered=True))]
    assert fold(record, again, NOW, FREE).claims == [Claim(0, 1, AGAIN)]


def test_the_end_of_a_run_is_told_again_with_its_message() -> None:
    ended = fold(begun(), facts(AttemptEnded(0, 1, OK), cause=MESSAGE), NOW, FREE)
    again = fold(ended.record, facts(AttemptEnded(0, 1, OK), cause=AGAIN), NOW, FREE)
    assert [type(command).__name__ for command in again.commands] == ["EmitEnd"]
    assert again.record is ended.record


def test_a_postponed_attempt_stays_claimed_from_a_later_time() -> None:
    record = begun(cause=MESSAGE)
    later = Cause("n", redelivered=False)
    transition = fold(record, facts(AttemptPostponed(0, 1, NOW + 1000), cause=later), NOW, FREE)
    assert transition.record.causes == {0: ("n", NOW + 1000)}
    assert (transition.record.run, transition.claims) == (record.run, [])
    other = fold(record, facts(AttemptPostponed(0, 2, NOW + 1000), cause=later), NOW, FREE)
    assert other.record is record


def test_a_fact_that_cannot_be_folded_leaves_nothing_behind() -> None:
    """The output of `a` is no JSON, as after a fault of the disk, and the condition behind `b` reads it."""
    steps = {"a": step(), "b": step("a"), "c": step({"step": "b", "if": "steps.a.x == 1"})}
    transition = fold(begun(**steps), facts(AttemptEnded(0, 1, Outcome(b"{")), cause=MESSAGE), NOW, FREE)
    record = transition.record
    before = copy.deepcopy((record.run, record.outputs, record.errors, record.causes))
    with pytest.raises(ValueError, match="unexpected end"):
        fold(record, facts(AttemptEnded(1, 1, Outcome(b"1")), cause=Cause("n", redelivered=False)), NOW, FREE)
    assert (record.run, record.outputs, record.errors, record.causes) == before


def test_transitions_say_which_messages_they_are_of() -> None:
    transition: Transition = fold(new(), facts(RunStarted(), cause=MESSAGE), NOW, FREE)
    assert transition.causes == [MESSAGE]

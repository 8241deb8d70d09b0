"""Tests that folding facts returns a new record of a run and never changes the given one."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from stepwell.core.plan import Runtime
from stepwell.core.run.messages import (
    AttemptEnded,
    AttemptLost,
    AttemptPostponed,
    AttemptStarted,
    CancelRequested,
    CarriedOver,
    ClearTimer,
    EmitEnd,
    Error,
    OpenWait,
    Outcome,
    RetryDue,
    RunResumed,
    RunStarted,
    SetTimer,
    StopStep,
)
from stepwell.core.run.run import RunStatus, StepStatus, new_run
from stepwell.core.run.timeouts import FINISH, START
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


def limited(slots: FreeSlots) -> Transition:
    record = new()
    record = replace(record, plan=replace(record.plan, start_timeout_ms=60_000, finish_timeout_ms=90_000))
    return fold(record, facts(RunStarted()), NOW, slots)


def test_a_run_that_starts_at_once_sets_no_timer_for_its_start() -> None:
    set_or_cleared = [command for command in limited(FREE).commands if isinstance(command, SetTimer | ClearTimer)]
    assert set_or_cleared == [SetTimer(FINISH, NOW + 90_000)]


def test_a_run_that_has_to_wait_for_a_slot_sets_a_timer_for_its_start() -> None:
    assert limited(NONE).commands[0] == SetTimer(START, NOW + 60_000)


def test_without_a_slot_an_attempt_stays_queued() -> None:
    transition = fold(new(), facts(RunStarted()), NOW, NONE)
    assert statuses(transition.record) == [StepStatus.QUEUED]
    assert transition.claims == []


def test_attempts_are_claimed_up_to_the_separate_limits_of_programs_and_calls() -> None:
    steps = {"a": step(), "b": step(), "c": {**step(), **HTTP}, "d": {**step(), **HTTP}}
    transition = fold(new(**steps), facts(RunStarted()), NOW, FreeSlots(1, 1))
    running, queued = StepStatus.RUNNING, StepStatus.QUEUED
    assert statuses(transition.record) == [running, queued, running, queued]
    assert slots_left(FreeSlots(1, 1), transition) == (0, 0)
    enough = fold(new(**steps), facts(RunStarted()), NOW, FreeSlots(2, 2))
    assert statuses(enough.record) == [running] * 4
    assert slots_left(FreeSlots(2, 2), enough) == (0, 0)


def test_an_attempt_that_needs_no_slot_any_more_does_not_delay_others() -> None:
    steps: Any = {"a": step(), "b": step()}
    transition = fold(new(**steps), facts(RunStarted(), AttemptStarted(0, 1)), NOW, FreeSlots(1, 0))
    assert transition.claims == [Claim(0, 1, None, holds_slot=True), Claim(1, 1, None)]
    steps["a"] |= HTTP
    assert fold(new(**steps), facts(RunStarted()), NOW, FreeSlots(1, 0)).claims == [Claim(1, 1, None)]


def test_approvals_take_no_slot() -> None:
    approval = {"runtime": {"type": "approval", "message": "Really?"}, "timeout": "1h", "after": [{"step": "$trigger"}]}
    transition = fold(new(a=approval), facts(RunStarted()), NOW, NONE)
    assert transition.claims == [Claim(0, 1, None)]
    assert slots_left(FREE, transition) == FREE


def test_folding_does_not_change_the_given_record() -> None:
    record = begun(cause=MESSAGE, a=step(), b=step("a"))
    before = copy.deepcopy((record.run, record.outputs, record.errors, record.causes))
    after = fold(record, facts(AttemptEnded(0, 1, Outcome(b"1")), cause=Cause("n", redelivered=False)), NOW, FREE)
    assert after.record.outputs == {0: b"1"}
    assert after.record.causes == {1: ("n", NOW)}
    assert (record.run, record.outputs, record.errors, record.causes) == before


def test_a_fact_that_changes_nothing_returns_the_same_record() -> None:
    record = begun()
    assert fold(record, facts(RunStarted()), NOW, FREE).record is record


def test_facts_are_folded_in_order_before_anything_is_claimed() -> None:
    record = begun(a=step(), b=step("a"))
    transition = fold(record, facts(AttemptEnded(0, 1, OK), CancelRequested()), NOW, FREE)
    assert transition.claims == []
    assert statuses(transition.record) == [StepStatus.COMPLETED, StepStatus.CANCELLED]


def test_an_attempt_from_the_queue_keeps_its_slot() -> None:
    record = begun(NONE)
    transition = fold(record, facts(AttemptStarted(0, 1)), NOW, NONE)
    assert transition.claims == [Claim(0, 1, None, holds_slot=True)]
    assert slots_left(NONE, transition) == NONE


def test_an_attempt_from_the_queue_that_needs_no_slot_any_more_is_reported() -> None:
    record = begun(NONE)
    transition = fold(record, facts(CancelRequested(), AttemptStarted(0, 1)), NOW, FREE)
    assert (transition.claims, transition.unclaimed) == ([], [AttemptStarted(0, 1)])


def of_other_system(runtime: str) -> RunRecord:
    record = new()
    steps = tuple(replace(step, runtime=Runtime(runtime)) for step in record.plan.steps)
    return replace(record, plan=replace(record.plan, steps=steps))


def test_an_attempt_of_another_system_is_claimed_without_a_slot() -> None:
    transition = fold(of_other_system("celery"), facts(RunStarted()), NOW, NONE)
    assert transition.claims == [Claim(0, 1, None)]
    assert slots_left(FREE, transition) == FREE


def test_an_attempt_that_workers_fetch_stays_queued_until_one_asks() -> None:
    transition = fold(of_other_system("faktory"), facts(RunStarted()), NOW, FREE)
    assert (transition.claims, statuses(transition.record)) == ([], [StepStatus.QUEUED])
    fetched = fold(transition.record, facts(AttemptStarted(0, 1)), NOW, NONE)
    assert fetched.claims == [Claim(0, 1, None, holds_slot=True)]


def test_running_attempts_of_a_cancelled_run_are_stopped() -> None:
    transition = fold(begun(), facts(CancelRequested()), NOW, FREE)
    assert StopStep(0, 1) in transition.commands


def test_a_redelivered_message_claims_its_attempts_again() -> None:
    record = begun(cause=MESSAGE)
    assert fold(record, facts(RunStarted(), cause=AGAIN), NOW, FREE).claims == [Claim(0, 1, AGAIN)]
    assert fold(record, facts(RunStarted(), cause=MESSAGE), NOW, FREE).claims == []
    assert fold(record, facts(RunStarted(), cause=Cause("n", redelivered=True)), NOW, FREE).claims == []


def test_a_step_is_claimed_once_by_several_messages() -> None:
    record = begun(NONE, cause=MESSAGE)
    again = [RunFact("r", RunStarted(), AGAIN), RunFact("r", RunStarted(), Cause("n", redelivered=True))]
    assert fold(record, again, NOW, FREE).claims == [Claim(0, 1, AGAIN)]


def test_the_end_of_a_run_is_sent_again_when_its_message_is_redelivered() -> None:
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


def test_a_fact_that_cannot_be_folded_has_no_effects() -> None:
    """The output of `a` is not JSON, as after a disk error, and the condition after `b` reads it."""
    steps = {"a": step(), "b": step("a"), "c": step({"step": "b", "if": "steps.a.x == 1"})}
    transition = fold(begun(**steps), facts(AttemptEnded(0, 1, Outcome(b"{")), cause=MESSAGE), NOW, FREE)
    record = transition.record
    before = copy.deepcopy((record.run, record.outputs, record.errors, record.causes))
    with pytest.raises(ValueError, match="unexpected end"):
        fold(record, facts(AttemptEnded(1, 1, Outcome(b"1")), cause=Cause("n", redelivered=False)), NOW, FREE)
    assert (record.run, record.outputs, record.errors, record.causes) == before


def test_transitions_contain_their_messages() -> None:
    transition: Transition = fold(new(), facts(RunStarted(), cause=MESSAGE), NOW, FREE)
    assert transition.causes == [MESSAGE]


# --- claims and slots ------------------------------------------------------------------------------------------------


def test_a_claim_with_a_slot_takes_no_free_slot() -> None:
    record = begun(NONE, a=step(), b=step())
    both = facts(AttemptStarted(0, 1), AttemptStarted(1, 1))
    assert slots_left(FreeSlots(1, 1), fold(record, both, NOW, FREE)) == (1, 1)
    ended = fold(begun(a=step(), b=step("a")), facts(AttemptEnded(0, 1, OK)), NOW, FREE)
    assert slots_left(FreeSlots(3, 3), ended) == (2, 3)


def test_other_claims_take_free_slots_next_to_a_claim_with_a_slot() -> None:
    queued = begun(NONE, a=step(), b=step("a"))
    transition = fold(queued, facts(AttemptStarted(0, 1), AttemptEnded(0, 1, OK)), NOW, FREE)
    assert [claim.holds_slot for claim in transition.claims] == [True, False]
    assert slots_left(FreeSlots(3, 3), transition) == (2, 3)


def test_a_queued_attempt_is_claimed_under_its_newest_number_only() -> None:
    some = facts(RunStarted(), AttemptStarted(0, 1), AttemptLost(0, 1), AttemptStarted(0, 1))
    transition = fold(new(), some, NOW, FREE)
    assert transition.claims == [Claim(0, 1, None, holds_slot=True), Claim(0, 2, None)]
    assert transition.unclaimed == [AttemptStarted(0, 1)]


def test_an_attempt_is_claimed_by_the_message_that_queued_it_at_the_current_time() -> None:
    record = begun(cause=MESSAGE, a=step(), b=step("a"), c=step())
    other = Cause("n", redelivered=False)
    transition = fold(record, facts(AttemptEnded(0, 1, OK), cause=other), NOW + 5, FREE)
    assert transition.claims == [Claim(1, 1, other)]
    assert transition.record.causes == {1: ("n", NOW + 5), 2: ("m", NOW)}


def test_a_fact_without_a_message_claims_without_a_cause() -> None:
    transition = fold(new(), facts(RunStarted()), NOW, FREE)
    assert (transition.causes, transition.record.causes) == ([], {})


# --- redelivered messages --------------------------------------------------------------------------------------------


def test_a_redelivered_claim_is_renewed_at_the_current_time() -> None:
    """The attempt is known not to have started."""
    record = begun(NONE)
    claimed = fold(record, facts(AttemptStarted(0, 1), cause=MESSAGE), NOW, NONE).record
    again = fold(claimed, facts(AttemptStarted(0, 1), cause=AGAIN), NOW + 5, NONE)
    assert again.claims == [Claim(0, 1, AGAIN)]
    assert again.record.causes == {0: ("m", NOW + 5)}
    assert again.record.run == claimed.run


def test_other_redelivered_messages_do_not_change_the_time_of_claims() -> None:
    record = begun(cause=MESSAGE)
    assert fold(record, facts(RunStarted(), cause=AGAIN), NOW + 5, FREE).record is record


def test_a_redelivered_claim_of_an_earlier_attempt_claims_nothing() -> None:
    record = fold(begun(cause=MESSAGE), facts(AttemptLost(0, 1), cause=MESSAGE), NOW, FREE).record
    assert record.run.steps[0].attempt == 2
    again = fold(record, facts(AttemptStarted(0, 1), cause=AGAIN), NOW, FREE)
    assert again.claims == []
    assert again.record is record


def test_a_redelivered_claim_of_an_ended_attempt_claims_nothing() -> None:
    record = fold(begun(), facts(AttemptEnded(0, 1, OK)), NOW, FREE).record
    assert fold(record, facts(AttemptStarted(0, 1), cause=AGAIN), NOW, FREE).claims == []


def test_a_redelivered_message_does_not_claim_attempts_that_have_ended() -> None:
    record = begun(cause=MESSAGE, a=step(), b=step())
    ended = fold(record, facts(AttemptEnded(0, 1, OK)), NOW, FREE).record
    assert ended.causes == {1: ("m", NOW)}
    assert fold(ended, facts(RunStarted(), cause=AGAIN), NOW, FREE).claims == [Claim(1, 1, AGAIN)]


def test_a_redelivered_cancellation_claims_nothing() -> None:
    """It has the same message id as the claim, as when one message cancels and another one has claimed with this id."""
    record = begun(cause=MESSAGE)
    cancelled = fold(record, facts(CancelRequested(), cause=MESSAGE), NOW, FREE).record
    again = fold(cancelled, facts(CancelRequested(), cause=AGAIN), NOW, FREE)
    assert again.claims == []
    assert again.commands == [EmitEnd("cancelled"), StopStep(0, 1)], "nobody knows whether it was stopped"
    failed = AttemptEnded(0, 1, Outcome(error=Error("exit", "1"), retryable=False))
    over = fold(begun(cause=MESSAGE, a=step(), b=step()), facts(failed), NOW, FREE).record
    assert (over.run.status, over.run.steps[1].status) == (RunStatus.FAILED, StepStatus.RUNNING)
    assert fold(over, facts(CancelRequested(), cause=AGAIN), NOW, FREE).claims == []


def test_the_end_of_an_open_run_is_not_sent() -> None:
    record = begun(cause=MESSAGE)
    assert fold(record, facts(RunStarted(), cause=AGAIN), NOW, FREE).commands == []


def test_the_end_is_sent_again_only_if_its_message_is_redelivered() -> None:
    ended = fold(begun(), facts(AttemptEnded(0, 1, OK), cause=MESSAGE), NOW, FREE).record
    assert list(fold(ended, facts(AttemptEnded(0, 1, OK), cause=MESSAGE), NOW, FREE).commands) == []
    assert list(fold(ended, facts(AttemptEnded(0, 1, OK)), NOW, FREE).commands) == []
    assert list(fold(ended, facts(AttemptEnded(0, 1, OK), cause=AGAIN), NOW, FREE).commands) == [EmitEnd("completed")]


def test_a_redelivered_failure_of_a_run_stops_nothing() -> None:
    steps: Any = {"a": step(), "b": step()}
    failed = AttemptEnded(0, 1, Outcome(error=Error("exit", "1"), retryable=False))
    record = begun(cause=MESSAGE, **steps)
    ended = fold(record, facts(failed, AttemptEnded(1, 1, OK), cause=MESSAGE), NOW, FREE).record
    assert ended.run.status is RunStatus.FAILED
    again = fold(ended, facts(failed, cause=AGAIN), NOW, FREE)
    assert list(again.commands) == [EmitEnd("failed")]


def test_an_attempt_is_postponed_by_a_message_only_while_it_runs() -> None:
    record = begun(cause=MESSAGE)
    later = Cause("n", redelivered=False)
    postponed = AttemptPostponed(0, 1, NOW + 1000)
    assert fold(record, facts(postponed), NOW, FREE).record is record, "there is no message to wait for"
    ended = fold(record, facts(AttemptEnded(0, 1, OK)), NOW, FREE).record
    assert fold(ended, facts(postponed, cause=later), NOW, FREE).record is ended


# --- results ---------------------------------------------------------------------------------------------------------


def test_an_error_is_stored_once_the_step_has_failed_for_good() -> None:
    failed = Outcome(error=Error("exit", "exit code 1"))
    record = begun(a=step(retries={"attempts": 1}))
    retrying = fold(record, facts(AttemptEnded(0, 1, failed)), NOW, FREE).record
    assert (statuses(retrying), retrying.errors) == ([StepStatus.RETRYING], {})
    due = retrying.run.steps[0].at
    again = fold(retrying, facts(RetryDue(0, 1)), due, FREE).record
    final = fold(again, facts(AttemptEnded(0, 2, failed)), due, FREE).record
    assert (statuses(final), list(final.errors)) == ([StepStatus.FAILED], [0])


def test_the_result_of_a_step_is_stored_next_to_other_results() -> None:
    record = begun(a=step(), b=step(), c=step())
    some = facts(AttemptEnded(0, 1, Outcome(b"1")), AttemptEnded(1, 1, Outcome(b"2")))
    assert fold(record, some, NOW, FREE).record.outputs == {0: b"1", 1: b"2"}


def test_a_late_output_is_not_stored() -> None:
    cancelled = fold(begun(), facts(CancelRequested()), NOW, FREE).record
    assert fold(cancelled, facts(AttemptEnded(0, 1, Outcome(b"1"))), NOW, FREE).record.outputs == {}


def test_results_carried_over_from_an_earlier_run_are_stored() -> None:
    record = new(a=step(), b=step("a"))
    resumed = RunResumed(1, (CarriedOver(0, Outcome(b"1")),), (0,), ())
    transition = fold(record, facts(resumed), NOW, FREE)
    assert transition.record.outputs == {0: b"1"}
    assert transition.claims == [Claim(1, 1, None)]


def test_a_failure_carried_over_from_an_earlier_run_has_an_error_and_no_output() -> None:
    record = new(a=step(), b=step({"step": "a", "on": "failure"}))
    failed = CarriedOver(0, Outcome(error=Error("exit", "1")))
    transition = fold(record, facts(RunResumed(1, (failed,), (0, 1), ())), NOW, FREE)
    assert (dict(transition.record.outputs), list(transition.record.errors)) == ({}, [0])


@pytest.mark.parametrize(("condition", "runs"), [("steps.a.x == 1", True), ("steps.a.x == 2", False)])
def test_a_condition_reads_the_result_of_the_same_fact(condition: str, runs: bool) -> None:
    record = begun(a=step(), b=step({"step": "a", "if": condition}))
    transition = fold(record, facts(AttemptEnded(0, 1, Outcome(b'{"x":1}'))), NOW, FREE)
    assert (transition.claims == [Claim(1, 1, None)]) == runs


@pytest.mark.parametrize(("condition", "runs"), [("errors.a.kind == 'exit'", True), ("errors.a.kind == 'x'", False)])
def test_a_condition_reads_the_error_of_the_same_fact(condition: str, runs: bool) -> None:
    record = begun(a=step(), b=step({"step": "a", "on": "failure", "if": condition}))
    error = Outcome(error=Error("exit", "1"), retryable=False)
    transition = fold(record, facts(AttemptEnded(0, 1, error)), NOW, FREE)
    assert (transition.claims == [Claim(1, 1, None)]) == runs


def test_the_key_of_a_wait_is_computed_from_the_values_at_that_time() -> None:
    match = {"event": "paid", "ttl": "1m", "match": "async.data.n == steps.a.n"}
    record = begun(a=step(), b=step({"step": "a", "async": match}))
    keys = []
    for output in (b'{"n":1}', b'{"n":2}', b'{"n":1,"m":0}'):
        transition = fold(record, facts(AttemptEnded(0, 1, Outcome(output))), NOW, FREE)
        keys += [command.key for command in transition.commands if isinstance(command, OpenWait)]
    assert None not in keys
    assert keys[0] == keys[2] != keys[1]


def test_only_long_runs_cache_joined_outputs() -> None:
    for count, is_joined in ((16, False), (17, True)):
        steps: Any = {f"s{n}": step(f"s{n - 1}") if n else step() for n in range(count)}
        record = begun(**steps)
        assert (record.joined is not None) == is_joined
        after = fold(record, facts(AttemptEnded(0, 1, Outcome(b"1"))), NOW, FREE).record
        assert after.joined is record.joined

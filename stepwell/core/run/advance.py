"""The state machine of a run. All changes of a run are here, in `settle` and in `draft`. Each change of a status is a
move in a table of `transitions`.

`advance(plan, run, fact, answers, now) -> Decision(run, commands)` is a pure function. It evaluates no expressions:
`questions.questions(plan, run, fact)` lists those that must be evaluated first; the caller passes the answers in.

The commands that a run still needs are derived from its state (`outstanding`). So a stale or repeated fact changes
nothing and returns these commands again. This is why a crash between commit and dispatch needs no outbox.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stepwell.core.plain_data import immutable
from stepwell.core.plan import Plan
from stepwell.core.run.answers import Answers
from stepwell.core.run.attempt_result import attempt_result, is_current
from stepwell.core.run.attempt_timer import attempt_timer, overdue_end
from stepwell.core.run.draft import Draft
from stepwell.core.run.messages import (
    AttemptEnded,
    AttemptLost,
    AttemptOverdue,
    AttemptPostponed,
    AttemptStarted,
    CancelRequested,
    ClearTimer,
    Command,
    DeadlinePassed,
    DelayEnded,
    EventArrived,
    Fact,
    RetryDue,
    RunHeld,
    RunResumed,
    RunStarted,
    RunTimedOut,
    SetTimer,
    StepKept,
    StopStep,
    TimerKind,
)
from stepwell.core.run.outstanding import outstanding
from stepwell.core.run.run import (
    EdgeStatus,
    PauseStatus,
    Run,
    RunStatus,
    StepStatus,
    has_begun,
)
from stepwell.core.run.settle import ON, RESULT, end_pause, end_run, fail_undecided, settle
from stepwell.core.run.timeouts import TIMEOUT_NAMES, start_timer

_RUNNING, _QUEUED_STEP = RunStatus.RUNNING, StepStatus.QUEUED  # looking up an enum member is slow before Python 3.12


@immutable
class Decision:
    """The result of folding a fact. `run` is the same object as before if the fact changed nothing."""

    run: Run
    commands: tuple[Command, ...]


def advance(plan: Plan, run: Run, fact: Fact, answers: Answers, now: int) -> Decision:
    """Folds one fact into a run. `answers` must cover `questions(plan, run, fact)`."""
    draft = Draft(plan, run, answers, now)
    if not _HANDLERS[type(fact)](draft, fact):
        claims_nothing = isinstance(fact, AttemptStarted | AttemptPostponed)
        return Decision(run, () if claims_nothing else tuple(outstanding(plan, run)))
    return Decision(draft.finish(), tuple(draft.commands))


def used_events(plan: Plan, run: Run, pause: int) -> set[str]:
    """The ids of events that satisfied a wait upstream of this pause in this run. They cannot satisfy it too."""
    used: set[str] = set()
    for e in plan.pauses[pause].upstream:
        before = run.pauses[plan.edges[e].pause or 0]
        if before.event_id is not None and e in before.edges:
            used.add(before.event_id)
    return used


# --- facts ---------------------------------------------------------------------------------------------------------
# A handler returns False if the fact is stale. In that case, the draft is unchanged.


def _run_started(draft: Draft, fact: RunStarted) -> bool:
    if draft.status is not _RUNNING or has_begun(draft.run):
        return False
    if not fail_undecided(draft, draft.plan.roots):
        _limit(draft)
        settle(draft, draft.plan.roots, "success")
    return True


def _run_held(draft: Draft, fact: RunHeld) -> bool:
    """Changes nothing: a run that was created and has not begun is held."""
    return False


def _run_resumed(draft: Draft, fact: RunResumed) -> bool:
    if draft.status is not RunStatus.RUNNING or has_begun(draft.run):
        return False
    for kept in fact.kept:
        draft.carry_over_step(kept)
    for step in (fact.step, *(kept.step for kept in fact.kept)):
        draft.carry_over_edges(step, fact.satisfied)
    for order, (p, event_id) in enumerate(fact.matched, 1):
        pair = tuple(e for e in draft.plan.pauses[p].edges if draft.edges[e] is not EdgeStatus.PENDING)
        draft.move_pause(p, "keep", event_id=event_id, order=order, edges=pair)
    if fail_undecided(draft, draft.plan.roots):
        return True
    _limit(draft)
    draft.start(fact.step)
    for kept in fact.kept:
        if kept.outcome is None:
            settle(draft, draft.plan.steps[kept.step].out, "skip")
    settle(draft, draft.plan.roots, "success")
    return True


def _limit(draft: Draft) -> None:
    """Begins what may cancel the run: waits of the rules of `cancel`, and the timer until the first attempt."""
    for p in draft.plan.cancels:
        draft.await_event(p, draft.run.created_at)
    draft.commands += start_timer(draft.plan, draft.run.created_at)


def _step_kept(draft: Draft, fact: StepKept) -> bool:
    """Settles the outgoing edges of a step that was carried over from an earlier run.

    A failure of the step does not fail this run: the earlier run has handled it, whatever happens to the edges here.
    """
    result, out = RESULT.get(draft.steps[fact.step].status), draft.plan.steps[fact.step].out
    pending = any(draft.edges[e] is EdgeStatus.PENDING for e in out)
    if draft.status is not RunStatus.RUNNING or result is None or not pending:
        return False
    if not fail_undecided(draft, out):
        settle(draft, out, result)
    return True


def _attempt_started(draft: Draft, fact: AttemptStarted) -> bool:
    state = draft.steps[fact.step]
    if state.status is not _QUEUED_STEP or state.attempt != fact.attempt:
        return False
    draft.claim(fact.step)
    step = draft.plan.steps[fact.step]
    if step.has_timer:
        draft.commands.append(SetTimer(attempt_timer(step, fact.step, fact.attempt), draft.now + step.timeout_ms))
    return True


def _attempt_postponed(draft: Draft, fact: AttemptPostponed) -> bool:
    """Changes nothing: the attempt stays claimed. Only the engine's record of the claim changes."""
    return False


def _attempt_over(draft: Draft, fact: AttemptEnded | AttemptLost) -> bool:
    state, step = draft.steps[fact.step], draft.plan.steps[fact.step]
    if not is_current(state, fact) or (step.is_approval and isinstance(fact, AttemptLost)):  # approvals have no worker
        return False
    ended = attempt_result(draft.run, step, state, fact)
    draft.record(fact.step, ended.record, ended.outcome, fact.at if isinstance(fact, AttemptEnded) else None)
    if step.has_timer:
        draft.commands.append(ClearTimer(attempt_timer(step, fact.step, state.attempt)))
    if ended.move == "retry":
        draft.retry(fact.step, draft.now + ended.delay_ms)
    elif ended.move == "lose":
        draft.lose(fact.step)
    else:
        draft.end_step(fact.step, ended.move)
        if draft.status is _RUNNING:
            _after_the_end(draft, fact.step, ended.move)
    return True


def _attempt_overdue(draft: Draft, fact: AttemptOverdue) -> bool:
    if not _attempt_over(draft, overdue_end(draft.plan.steps[fact.step], fact)):
        return False
    draft.commands.append(StopStep(fact.step, fact.attempt))
    return True


def _after_the_end(draft: Draft, i: int, move: str) -> None:
    out = draft.plan.steps[i].out
    if fail_undecided(draft, out):
        return
    if move == "complete":
        settle(draft, out, "success")
    elif any(draft.plan.edges[e].on in ON["failure"] and draft.holds(e) for e in out):
        settle(draft, out, "failure")
    else:
        draft.failed_step = i
        end_run(draft, "fail")


def _retry_due(draft: Draft, fact: RetryDue) -> bool:
    state = draft.steps[fact.step]
    if state.status is not StepStatus.RETRYING or state.attempt != fact.attempt:
        return False
    draft.retry_due(fact.step)
    return True


def _delay_ended(draft: Draft, fact: DelayEnded) -> bool:
    if draft.pauses[fact.pause].status is not PauseStatus.DELAYED:
        return False
    if draft.plan.pauses[fact.pause].event is None:
        draft.move_pause(fact.pause, "elapse")
        end_pause(draft, fact.pause, lambda edge_on_timeout: True)
    else:
        # The ttl counts from the end of the delay, however late the timer fired.
        draft.await_event(fact.pause, draft.pauses[fact.pause].due_at)
    return True


def _event_arrived(draft: Draft, fact: EventArrived) -> bool:
    if draft.pauses[fact.pause].status is not PauseStatus.AWAITING:
        return False
    if fact.event_id in used_events(draft.plan, draft.run, fact.pause):
        return False
    order = 1 + max((pause.order for pause in draft.pauses), default=0)
    draft.close_wait(fact.pause)
    draft.move_pause(fact.pause, "match", event_id=fact.event_id, order=order)
    if draft.plan.pauses[fact.pause].cancels:
        end_run(draft, "cancel")
    else:
        end_pause(draft, fact.pause, lambda on_timeout: not on_timeout)
    return True


def _deadline_passed(draft: Draft, fact: DeadlinePassed) -> bool:
    if draft.pauses[fact.pause].status is not PauseStatus.AWAITING:
        return False
    draft.close_wait(fact.pause)
    draft.move_pause(fact.pause, "expire")
    end_pause(draft, fact.pause, lambda on_timeout: on_timeout)
    return True


def _run_timed_out(draft: Draft, fact: RunTimedOut) -> bool:
    is_late = fact.kind is TimerKind.FINISH or draft.started_at is None
    if draft.status is not RunStatus.RUNNING or not is_late:
        return False
    draft.cancel_reason = ("timeout", TIMEOUT_NAMES[fact.kind])
    end_run(draft, "cancel")
    return True


def _cancel_requested(draft: Draft, fact: CancelRequested) -> bool:
    if draft.status is not RunStatus.RUNNING:
        return False
    if fact.replaced_by is not None:
        draft.cancel_reason = ("singleton", fact.replaced_by)
    end_run(draft, "cancel")
    return True


_HANDLERS: dict[type, Callable[[Draft, Any], bool]] = {
    RunStarted: _run_started,
    RunHeld: _run_held,
    RunResumed: _run_resumed,
    StepKept: _step_kept,
    AttemptStarted: _attempt_started,
    AttemptPostponed: _attempt_postponed,
    AttemptEnded: _attempt_over,
    AttemptLost: _attempt_over,
    AttemptOverdue: _attempt_overdue,
    RetryDue: _retry_due,
    DelayEnded: _delay_ended,
    EventArrived: _event_arrived,
    DeadlinePassed: _deadline_passed,
    RunTimedOut: _run_timed_out,
    CancelRequested: _cancel_requested,
}

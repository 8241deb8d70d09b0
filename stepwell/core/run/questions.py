"""Which expressions must be evaluated before a fact can be folded. `advance` itself evaluates none."""

from __future__ import annotations

from stepwell.core.plan import TRIGGER, Plan
from stepwell.core.run.answers import NO_QUESTIONS, Questions
from stepwell.core.run.attempt_result import attempt_result, is_current
from stepwell.core.run.attempt_timer import overdue_end
from stepwell.core.run.messages import (
    AttemptEnded,
    AttemptLost,
    AttemptOverdue,
    DelayEnded,
    Fact,
    Outcome,
    RunResumed,
    RunStarted,
    StepKept,
)
from stepwell.core.run.run import EdgeStatus, Run, RunStatus
from stepwell.core.run.settle import ON, RESULT

_RUNNING = RunStatus.RUNNING  # looking up an enum member is slow before Python 3.12
_OVER = (AttemptEnded, AttemptLost)  # a tuple is created once, a union of types on each call


def questions(plan: Plan, run: Run, fact: Fact) -> Questions:
    """The expressions that must be evaluated before a fact can be folded."""
    if run.status is not _RUNNING:
        return NO_QUESTIONS
    if isinstance(fact, AttemptOverdue):
        fact = overdue_end(plan.steps[fact.step], fact)
    if isinstance(fact, _OVER):  # first, because most facts with questions are of these types
        state, step = run.steps[fact.step], plan.steps[fact.step]
        if step.needs_no_evaluation or not is_current(state, fact):
            return NO_QUESTIONS
        ended = attempt_result(run, step, state, fact)
        if ended.move not in ("complete", "fail"):
            return NO_QUESTIONS
        result = "success" if ended.move == "complete" else "failure"
        return _questions(plan, fact.step, step.out, result, ended.outcome)
    if isinstance(fact, RunStarted):
        return _questions(plan, TRIGGER, plan.roots, "success", also=plan.cancels)
    if isinstance(fact, RunResumed):
        settled = {fact.step, *(kept.step for kept in fact.kept)}  # the edges of these steps are carried over
        roots = tuple(e for e in plan.roots if plan.edges[e].step not in settled)
        return _questions(plan, TRIGGER, roots, "success", also=plan.cancels)
    if isinstance(fact, StepKept):
        out = tuple(e for e in plan.steps[fact.step].out if run.edges[e] is EdgeStatus.PENDING)
        return _questions(plan, fact.step, out, RESULT.get(run.steps[fact.step].status, ""))
    if isinstance(fact, DelayEnded) and plan.pauses[fact.pause].event is not None:
        return Questions(plan.pauses[fact.pause].parent, pauses=(fact.pause,))
    return NO_QUESTIONS


def _questions(
    plan: Plan,
    parent: int,
    edges: tuple[int, ...],
    result: str,
    outcome: Outcome | None = None,
    also: tuple[int, ...] = (),
) -> Questions:
    """The expressions that are needed to settle these edges, and to open the pauses in `also`."""
    passing, conditions, moments = ON.get(result, ()), [], []
    begun: dict[int, None] = {}  # pauses that begin, without duplicates
    for e in edges:
        edge = plan.edges[e]
        if edge.on not in passing:
            continue
        if edge.condition is not None:
            conditions.append(e)
        if edge.pause is not None:
            pause = plan.pauses[edge.pause]
            if pause.until is not None:
                moments.append(e)
            if pause.event is not None and not pause.delay_ms:
                begun[edge.pause] = None
    return Questions(parent, tuple(conditions), (*begun, *also), outcome, tuple(moments))

"""The consequences of a change in a run: edges settle, steps start or are skipped, the run ends.

These functions change the draft only with its methods.
"""

from __future__ import annotations

from collections.abc import Callable

from stepwell.core.run.attempt_timer import attempt_timer
from stepwell.core.run.draft import Draft
from stepwell.core.run.joins import JOINS
from stepwell.core.run.messages import ClearTimer, Outcome, StopStep, Timer, TimerKind
from stepwell.core.run.run import ENDED_STEPS, UNTIL, EdgeStatus, StepStatus

_PENDING_STEP, _RUNNING_STEP = StepStatus.PENDING, StepStatus.RUNNING
_PENDING_EDGE, _PAUSED_EDGE = EdgeStatus.PENDING, EdgeStatus.PAUSED

# The result of a step that has ended, for the edges out of it.
RESULT = {StepStatus.COMPLETED: "success", StepStatus.FAILED: "failure"}

# The values of an edge's `on` that hold for each result of the parent.
ON = {"success": ("success", "always"), "failure": ("failure", "always")}


def end_run(draft: Draft, move: str) -> None:
    """Fails or cancels the run. Steps that have not ended are cancelled; after a failure, running attempts go on."""
    draft.move_run(move)
    for i, state in enumerate(draft.steps):
        step, running = draft.plan.steps[i], state.status is _RUNNING_STEP
        if state.status in ENDED_STEPS or (move == "fail" and running and not step.is_approval):
            continue
        if running and step.has_timer:
            draft.commands.append(ClearTimer(attempt_timer(step, i, state.attempt)))
        if running and not step.is_approval:
            draft.commands.append(StopStep(i, state.attempt))
        if state.status in (StepStatus.QUEUED, _RUNNING_STEP):
            draft.record(i, "cancelled", Outcome())
        if state.status is StepStatus.RETRYING:
            draft.commands.append(ClearTimer(Timer(TimerKind.RETRY, i, state.attempt)))
        draft.end_step(i, "cancel")
        draft.kill_edges_of(i)


def fail_undecided(draft: Draft, edges: tuple[int, ...]) -> bool:
    """Fails the run if the `if` of one of these edges, or the `wait.until` of one whose `if` is true, has no value.
    Returns whether the run has failed."""
    conditions, moments = draft.answers.edges, draft.answers.moments
    if not conditions and not moments:
        return False
    undecided = [e for e in edges if (answer := conditions.get(e)) and answer.problem is not None]
    for e in undecided:
        draft.note_problem("edge", e, conditions[e])
    timeless = [e for e in edges if (moment := moments.get(e)) and moment.problem is not None and draft.holds(e)]
    for e in timeless:
        draft.note_problem(UNTIL, e, moments[e])
    undecided += timeless
    if undecided:
        draft.failed_edge = undecided[0]
        end_run(draft, "fail")
    return bool(undecided)


def settle(draft: Draft, edges: tuple[int, ...], result: str) -> None:
    """Settles the edges out of a parent that ended with `result`: success, failure or skip."""
    if edges:
        _settle_edges(draft, edges, result)
        _join_children(draft, edges)


def end_pause(draft: Draft, p: int, satisfied: Callable[[bool], bool]) -> None:
    """Settles the edges of a pause that has ended. An edge is satisfied if `satisfied(on_timeout)`, else dead."""
    edges = draft.plan.pauses[p].edges
    for e in edges:
        if draft.edges[e] is _PAUSED_EDGE:
            draft.move_edge(e, "satisfy" if satisfied(draft.plan.edges[e].on_timeout) else "kill")
    _join_children(draft, edges)


def _settle_edges(draft: Draft, edges: tuple[int, ...], result: str) -> None:
    """Settles edges or begins their pauses, in the order `on`, `if`, `wait`, `async`."""
    begun: dict[int, list[int]] = {}
    passing, plan_edges = ON.get(result, ()), draft.plan.edges
    for e in edges:
        if draft.edges[e] is not _PENDING_EDGE:
            continue
        edge = plan_edges[e]
        passes = edge.on in passing and (edge.condition is None or draft.holds(e))
        if passes and edge.pause is not None:
            draft.move_edge(e, "pause")
            begun.setdefault(edge.pause, []).append(e)
        else:
            draft.move_edge(e, "satisfy" if passes else "kill")
    for p, members in begun.items():
        if draft.begin_pause(p, tuple(members)):
            for e in members:
                draft.move_edge(e, "satisfy")


def _join_children(draft: Draft, edges: tuple[int, ...]) -> None:
    """Starts or skips the steps behind these edges, and those behind skipped steps.

    A chain of 1,000 skipped steps is one transition, so this uses a list and not recursion.
    """
    children = _children(draft, edges)
    for i in children:
        if _join(draft, i) == "skip":
            out = draft.plan.steps[i].out
            _settle_edges(draft, out, "skip")
            children += _children(draft, out)


def _children(draft: Draft, edges: tuple[int, ...]) -> list[int]:
    if len(edges) == 1:
        return [draft.plan.edges[edges[0]].step]
    return list(dict.fromkeys([draft.plan.edges[e].step for e in edges]))


def _join(draft: Draft, i: int) -> str | None:
    """Starts or skips a pending step if the edges decide it. Returns the move, or None."""
    if draft.steps[i].status is not _PENDING_STEP:
        return None
    step = draft.plan.steps[i]
    if step.join == "merge" and draft.edges[step.edges[-1]] is _PENDING_EDGE:
        return None  # a quick check, so that a step with many parents costs each of them little
    move = JOINS[step.join]([draft.edges[e] for e in step.edges])
    if move == "start":
        draft.start(i)
    elif move == "skip":
        draft.end_step(i, "skip")
        draft.kill_edges_of(i)
    return move

"""Continues an earlier run from one of its steps: computes the first facts of the new run.

All steps that come after this step, in either version, run again. The other steps keep their outcomes if they had
ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stepwell.core.plan import Plan
from stepwell.core.run.inputs import error_from
from stepwell.core.run.messages import CarriedOver, Fact, Outcome, RunResumed, StepKept
from stepwell.core.run.run import EdgeStatus, PauseStatus, Run, RunStatus, StepStatus

_KEPT = (StepStatus.COMPLETED, StepStatus.SKIPPED)


@dataclass(frozen=True, slots=True)
class Restart:
    """The step from which a run continues. `outputs`: new outputs for kept steps (JSON texts, by step id)."""

    step: str
    outputs: Mapping[str, bytes] = field(default_factory=dict)


class CannotResume(Exception):
    """The live version cannot continue the run from this step. The message contains the reason and what to do."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """The run to continue. `outputs` and `errors` are JSON texts by step."""

    plan: Plan
    run: Run
    outputs: Mapping[int, bytes]
    errors: Mapping[int, bytes]


def resumption(earlier: Earlier, plan: Plan, restart: Restart) -> list[Fact]:
    """The first facts of a run of `plan` that continues from a step. Raises CannotResume.

    All facts must be folded in one transition.
    """
    before, now = _index(earlier.plan), _index(plan)
    live = f"the live version {plan.version} of {plan.function_id}"
    if restart.step not in now:
        raise CannotResume(f"{live} has no step {restart.step[:100]!r}; choose one of {', '.join(now)}")
    again = _with_descendants(earlier.plan, restart.step) | _with_descendants(plan, restart.step)
    kept = [name for name, i in before.items() if name not in again and _keeps(earlier, i)]
    missing = [name for name in kept if name not in now]
    if missing:
        raise CannotResume(
            f"{live} has no step {missing[0]!r}, whose outcome would be kept; rerun the whole run without `from_step`"
        )
    editable = [name for name in kept if earlier.run.steps[before[name]].status is StepStatus.COMPLETED]
    for output in restart.outputs:
        if output not in editable:
            choice = f"set those of {', '.join(editable)}" if editable else "no step's output can be set here"
            raise CannotResume(
                f"the output of step {output[:100]!r} cannot be set, because the step did not complete or runs again;"
                f" {choice}"
            )
    outcomes = [CarriedOver(now[name], _outcome(earlier, before[name], restart.outputs.get(name))) for name in kept]
    settled = {*kept, restart.step}
    satisfied, matched = _edges(earlier, plan, settled)
    resumed = RunResumed(now[restart.step], tuple(outcomes), satisfied, matched)
    to_settle = [i for i in (now[name] for name in kept) if _leads_on(plan, i, settled)]
    ended = [i for i in to_settle if next(k for k in outcomes if k.step == i).outcome is not None]
    return [resumed, *(StepKept(i) for i in ended)]


def _index(plan: Plan) -> dict[str, int]:
    return {step.id: i for i, step in enumerate(plan.steps)}


def _with_descendants(plan: Plan, step_id: str) -> set[str]:
    at = _index(plan).get(step_id)
    after = {step.id for step in plan.steps if at is not None and at in step.ancestors}
    return {step_id, *after}


def _keeps(earlier: Earlier, i: int) -> bool:
    """Whether the outcome of a step is kept: the step completed, was skipped, or failed and the failure was handled."""
    run, status = earlier.run, earlier.run.steps[i].status
    if status is not StepStatus.FAILED:
        return status in _KEPT
    if run.status is not RunStatus.FAILED:  # an unhandled failure would have failed the run
        return True
    # A failure was handled if an edge was taken because of it. Failures after the run had failed were not handled.
    edges = [e for e in earlier.plan.steps[i].out if earlier.plan.edges[e].on in ("failure", "always")]
    return any(run.edges[e] is EdgeStatus.SATISFIED or _went_into_its_pause(earlier, e) for e in edges)


def _went_into_its_pause(earlier: Earlier, e: int) -> bool:
    pause = earlier.plan.edges[e].pause
    return pause is not None and e in earlier.run.pauses[pause].edges


def _outcome(earlier: Earlier, i: int, edited: bytes | None) -> Outcome | None:
    status = earlier.run.steps[i].status
    if status is StepStatus.COMPLETED:
        if edited is None and i not in earlier.outputs:
            step = earlier.plan.steps[i].id
            raise CannotResume(f"the output of step {step!r} is not stored any more; set one with `outputs`")
        return Outcome(output=edited if edited is not None else earlier.outputs[i])
    return Outcome(error=error_from(earlier.errors[i])) if status is StepStatus.FAILED else None


def _leads_on(plan: Plan, i: int, settled: set[str]) -> bool:
    return any(plan.steps[plan.edges[e].step].id not in settled for e in plan.steps[i].out)


def _edges(earlier: Earlier, plan: Plan, settled: set[str]) -> tuple[tuple[int, ...], tuple[tuple[int, str], ...]]:
    """The satisfied edges into settled steps that exist in both versions, and the events that matched their pauses.

    So a step whose edge waited for an event gets this event again. A pause is left out if it has edges to other steps
    too: these wait again.
    """
    old, run = earlier.plan, earlier.run
    known = {_signature(old, e): e for e in range(len(old.edges)) if run.edges[e] is EdgeStatus.SATISFIED}
    satisfied: list[int] = []
    matched: dict[int, tuple[int, str]] = {}
    for step in plan.steps:
        for e in step.edges if step.id in settled else ():
            number = known.get(_signature(plan, e))
            if number is None:
                continue
            satisfied.append(e)
            pause, before = plan.edges[e].pause, old.edges[number].pause
            if pause is None or before is None or run.pauses[before].status is not PauseStatus.MATCHED:
                continue
            if all(plan.steps[plan.edges[other].step].id in settled for other in plan.pauses[pause].edges):
                matched[pause] = (run.pauses[before].order, run.pauses[before].event_id or "")
    in_order = sorted(matched.items(), key=lambda item: item[1])
    return tuple(satisfied), tuple((pause, event_id) for pause, (_, event_id) in in_order)


def _signature(plan: Plan, e: int) -> tuple[object, ...]:
    """A value that is equal for equal edges of two versions, even if their indexes differ."""
    edge = plan.edges[e]
    pause = None if edge.pause is None else plan.pauses[edge.pause]
    waits = None if pause is None else (pause.delay_ms, pause.until, pause.event, pause.match, pause.ttl_ms)
    parent = None if edge.parent < 0 else plan.steps[edge.parent].id
    return plan.steps[edge.step].id, parent, edge.on, edge.condition, waits, edge.on_timeout

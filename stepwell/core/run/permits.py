"""The permits that the start of a run or of an attempt needs, and its rank among those that wait for the same limit.

All of it follows from the run, so nothing of it is stored: after a restart, it is computed again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from stepwell.core.cel.expressions import Bindings, Scope, compile_value
from stepwell.core.events.events import Event
from stepwell.core.flow.keys import NO_KEY, WHOLE, Key, key_of, key_of_event
from stepwell.core.plan import Limit, Plan
from stepwell.core.run.inputs import step_values
from stepwell.core.run.messages import RunHeld, RunStarted
from stepwell.core.run.run import Run, RunStatus, StepStatus, has_begun

RUN = -1  # in place of a step: the start of the run itself
MAX_PRIORITY = 600  # seconds

Problem = tuple[str, int, str]  # as in `Run.problems`


class Permit(NamedTuple):
    """The right to start under one key of a limit. `text`: the key's value as JSON, for people."""

    limit: Limit
    key: bytes
    text: str = ""


def begin(run: Run, plan: Plan, event: Event) -> tuple[Run, RunStarted | RunHeld]:
    """A new run with the problems of its limits, and the run's first fact."""
    if not (plan.start_limits or plan.step_limits or plan.priority):
        return run, RunStarted()
    run = run._replace(problems=(*run.problems, *_problems_of_run(plan, run, event)))
    return run, RunHeld() if plan.start_limits else RunStarted()


def permits_of_run(plan: Plan, run: Run, event: Event) -> list[Permit]:
    """The permits that the start of a run needs."""
    return [permit for permit, _ in _of_function(plan.start_limits, run, event)]


def permits_of_steps(plan: Plan, run: Run, event: Event) -> list[Permit]:
    """The permits that an attempt of any step needs, because of the function's limits. They are the same for all."""
    return [permit for permit, _ in _of_function(plan.step_limits, run, event)]


def permits_of_step(
    plan: Plan, run: Run, step: int, event: Event, outputs: Mapping[int, bytes], errors: Mapping[int, bytes]
) -> list[Permit]:
    """The permits that an attempt needs because of the step's own limits. `outputs`, `errors`: JSON texts by step."""
    return [permit for permit, _ in _of_step(plan, run, step, event, outputs, errors)]


def permits_of_attempt(
    plan: Plan, run: Run, step: int, event: Event, outputs: Mapping[int, bytes], errors: Mapping[int, bytes]
) -> list[Permit]:
    """All permits that an attempt needs. `outputs` and `errors`: JSON texts by step."""
    return [*permits_of_steps(plan, run, event), *permits_of_step(plan, run, step, event, outputs, errors)]


def problem_of_step(
    plan: Plan, run: Run, step: int, event: Event, outputs: Mapping[int, bytes], errors: Mapping[int, bytes]
) -> Problem | None:
    """Why a key of the step's own limits has no value. To be shown with the step."""
    found = _of_step(plan, run, step, event, outputs, errors)
    return next((("step_limit", step, problem) for _, problem in found if problem is not None), None)


def is_waiting(run: Run, start: tuple[str, int, int]) -> bool:
    """Whether a run, or an attempt (run id, step, attempt), is still to start."""
    _, step, attempt = start
    if step == RUN:
        return run.status is RunStatus.RUNNING and not has_begun(run)
    state = run.steps[step]
    return state.status is StepStatus.QUEUED and state.attempt == attempt


def rank_of(plan: Plan, run: Run, event: Event) -> int:
    """The place among others that wait for the same limit; the lowest comes first. It is the run's creation in ms,
    moved by the priority."""
    return run.created_at if plan.priority is None else run.created_at - 1000 * _priority(plan, event)[0]


def _problems_of_run(plan: Plan, run: Run, event: Event) -> tuple[Problem, ...]:
    """Why keys of the function's limits, or its priority, have no value. To be shown with the run."""
    limits = (*plan.start_limits, *plan.step_limits)
    found = [problem for _, problem in _of_function(limits, run, event) if problem is not None]
    _, wrong = _priority(plan, event)
    problems = [("limit", 0, problem) for problem in found[:1]]
    return (*problems, *([] if wrong is None else [("priority", 0, wrong)]))


def _of_step(
    plan: Plan, run: Run, step: int, event: Event, outputs: Mapping[int, bytes], errors: Mapping[int, bytes]
) -> list[tuple[Permit, str | None]]:
    limits = plan.steps[step].limits[len(plan.step_limits) :]
    expressions = [compile_value(limit.key, Scope.MESSAGE) for limit in limits if limit.key is not None]
    if not expressions:
        return [(Permit(limit, WHOLE), None) for limit in limits]
    values: dict[str, Any] = step_values(plan, run, step, outputs, errors, expressions)
    bindings = Bindings(event=event.as_json(), **values)
    keys = [key_of(limit.key, Scope.MESSAGE, bindings, run.id) if limit.key else NO_KEY for limit in limits]
    return [_with_key(limit, key) for limit, key in zip(limits, keys, strict=True)]


def _of_function(limits: Iterable[Limit], run: Run, event: Event) -> list[tuple[Permit, str | None]]:
    """A permit for each limit of the function, and why the key has no value if there is none."""
    return [_with_key(limit, key_of_event(limit.key, event, run.id) if limit.key else NO_KEY) for limit in limits]


def _with_key(limit: Limit, key: Key) -> tuple[Permit, str | None]:
    return Permit(limit, key.digest, key.text), key.problem


def _priority(plan: Plan, event: Event) -> tuple[int, str | None]:
    """The priority in seconds, and the reason if the expression has no valid value; then it is 0."""
    if plan.priority is None:
        return 0, None
    found = compile_value(plan.priority, Scope.TRIGGER).value(Bindings(event=event.as_json()))
    value = found.value
    if found.problem is not None:
        return 0, f"{found.problem}; the run has no priority"
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        return 0, "the value is not a whole number; the run has no priority"
    if abs(value) > MAX_PRIORITY:
        nearest = MAX_PRIORITY if value > 0 else -MAX_PRIORITY
        return nearest, f"the value is not from -{MAX_PRIORITY} to {MAX_PRIORITY}; the nearest of them applies"
    return int(value), None

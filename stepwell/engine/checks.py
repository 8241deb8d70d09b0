"""Decides whether an event may start a run, by the checks of the function, in order.

`idempotency` comes first, then `rate_limit`, then `singleton`. Each check claims for the run. A run that one check
refuses uses up nothing of the others: the claims of the earlier checks are released.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stepwell.core.events.events import Event
from stepwell.core.flow.keys import limit_key
from stepwell.core.flow.windows import limit_reached
from stepwell.core.plain_data import immutable
from stepwell.core.plan import Plan
from stepwell.core.routing.idempotency import already_run, value_key
from stepwell.core.routing.not_started import NotStarted
from stepwell.core.run.run import Run, with_problem
from stepwell.engine.singleton import claim_key, still_replaced
from stepwell.platform import Batch, DamagedRun


@immutable
class Start:
    """A run that an event is about to start. `again`: the event may have started the run, or been refused, before."""

    batch: Batch
    plan: Plan
    event: Event
    run: Run
    again: bool


@immutable
class Checked:
    """The decision on a start. `run`: the run to start, or None. `reason`: why not; None if that is stored already.
    `replaces`: the runs that it cancels."""

    run: Run | None
    reason: NotStarted | None = None
    replaces: Sequence[str] = ()


@immutable
class _Passed:
    """A check lets the run start. `problem`: why it has no key. `release` releases its claim."""

    problem: str | None = None
    release: Callable[[], None] | None = None
    replaces: Sequence[str] = ()


def admit(start: Start) -> Checked:
    """Makes the checks in order. Raises NotWritten."""
    run, plan = start.run, start.plan
    if start.again and (plan.rate_limit is not None or plan.singleton is not None):
        if _exists(start):
            return Checked(run, replaces=still_replaced(start.batch, plan, run, start.event))
        if plan.function_id in start.batch.checks.refused(start.event):
            return Checked(None)
    releases: list[Callable[[], None]] = []
    replaces: Sequence[str] = ()
    for name, check in _CHECKS.items():
        answer = check(start)
        if isinstance(answer, NotStarted):
            for release in reversed(releases):
                release()
            return Checked(None, answer)
        run = with_problem(run, name, answer.problem)
        if answer.release is not None:
            releases.append(answer.release)
        replaces = answer.replaces or replaces
    return Checked(run, replaces=replaces)


def _exists(start: Start) -> bool:
    try:
        return start.run.id in start.batch.load([start.run.id])
    except DamagedRun:
        return True


def _idempotency(start: Start) -> _Passed | NotStarted:
    plan, run, event = start.plan, start.run, start.event
    if plan.idempotency is None:
        return _Passed()
    values = start.batch.checks.idempotency
    value, problem = value_key(plan.idempotency, event)
    if problem is not None:
        return _Passed(problem)
    first = values.claim(plan.function_id, value, run.id, event.position)
    if first != run.id:
        return NotStarted(plan.function_id, plan.idempotency, already_run(first), first)
    return _Passed(release=lambda: values.release(plan.function_id, value, run.id))


def _rate_limit(start: Start) -> _Passed | NotStarted:
    plan, run, event, batch, limit = start.plan, start.run, start.event, start.batch, start.plan.rate_limit
    if limit is None:
        return _Passed()
    limits = batch.checks.rate_limits
    key, problem = limit_key(limit.key, event)
    if problem is not None:  # a run without a value has a limit of its own, which is at least one start
        return _Passed(problem)
    possible_at = limits.claim(plan.function_id, key, limit, run.id, batch.now, again=start.again)
    if possible_at is not None:
        return NotStarted(plan.function_id, limit.key or "", limit_reached(limit, possible_at))
    return _Passed(release=lambda: limits.release(plan.function_id, key, run.id))


def _singleton(start: Start) -> _Passed | NotStarted:
    if start.plan.singleton is None:
        return _Passed()
    claimed = claim_key(start.batch, start.plan, start.run, start.event, start.event.position)
    return claimed if isinstance(claimed, NotStarted) else _Passed(claimed.problem, replaces=claimed.replaces)


_CHECKS: dict[str, Callable[[Start], _Passed | NotStarted]] = {
    "idempotency": _idempotency,
    "rate_limit": _rate_limit,
    "singleton": _singleton,  # the last one, so that its claim is never released
}

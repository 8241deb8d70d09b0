"""The events that the engine itself sends when a run ends: `stepwell/run.completed|failed|cancelled`.

One rule: a run that one of these started emits none, so that no function can wake itself for ever.
"""

from __future__ import annotations

from collections.abc import Mapping

from stepwell.core.events.engine_ids import EngineId
from stepwell.core.events.events import Event, internal_event
from stepwell.core.plan import Plan
from stepwell.core.run.run import STATUS_NAMES, Run, RunStatus
from stepwell.core.run.run_error import run_error

RUN_EVENTS = "stepwell/run."


def cancelled_by(plan: Plan, run: Run) -> str | None:
    """The id of the event that cancelled this run, if a rule of `cancel` did."""
    return next((text for p in plan.cancels if (text := run.pauses[p].event_id) is not None), None)


def end_event(
    plan: Plan, run: Run, trigger: Event, errors: Mapping[int, bytes], now: int, replay: str | None = None
) -> Event | None:
    """The event that tells of this run's end; None if `trigger` was one itself. `errors`: JSON texts by step. `replay`:
    the replay that made the run, so that who acts on the end can leave those out: `!has(data.replay)`. `cancelled_by`
    is there if an event cancelled it."""
    if trigger.name.startswith(RUN_EVENTS):
        return None
    error = run_error(plan, run, errors)
    if error is not None:
        error.pop("output", None)  # an event has a size limit; the run has it all
    data = {
        "run_id": run.id,
        "function_id": plan.function_id,
        "function_version": plan.version,
        "event_id": trigger.id,
        "event_name": trigger.name,
        "error": error,
        **({} if replay is None else {"replay": replay}),
    }
    if run.status is RunStatus.CANCELLED and (text := cancelled_by(plan, run)) is not None:
        data["cancelled_by"] = text
    return internal_event(RUN_EVENTS + STATUS_NAMES[run.status], data, trigger.user, f"{EngineId.RUN}{run.id}", now)

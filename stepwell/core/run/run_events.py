"""The events that the engine sends when a run ends: `stepwell/run.completed|failed|cancelled`.

A run that was started by such an event sends none, so that no function can trigger itself forever.
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
    """The id of the event that cancelled the run by a rule of `cancel`; None if there is none."""
    return next((text for p in plan.cancels if (text := run.pauses[p].event_id) is not None), None)


def cancel_reason(run: Run) -> str | None:
    """Why the engine itself cancelled the run: timeout or singleton; None if a request or an event did."""
    return None if run.cancel_reason is None else run.cancel_reason[0]


def end_event(
    plan: Plan, run: Run, trigger: Event, errors: Mapping[int, bytes], now: int, replay: str | None = None
) -> Event | None:
    """The event about the end of a run; None if the run was started by such an event.

    `errors`: JSON texts by step. `replay`: the id of the replay that created the run. A trigger can exclude replays
    with `!has(data.replay)`. The data has `cancelled_by` if an event cancelled the run. It has `reason` if the engine
    did, with `timeout` (a limit of `timeouts`) or `replaced_by` (the run that has taken the place of this one).
    """
    if trigger.name.startswith(RUN_EVENTS):
        return None
    error = run_error(plan, run, errors)
    if error is not None:
        error.pop("output", None)  # the size of an event is limited; the run has the whole error
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
    if (reason := cancel_reason(run)) is not None:
        details = {"timeout": run.timed_out, "replaced_by": run.replaced_by}
        data |= {"reason": reason, **{name: text for name, text in details.items() if text is not None}}
    return internal_event(RUN_EVENTS + STATUS_NAMES[run.status], data, trigger.user, f"{EngineId.RUN}{run.id}", now)

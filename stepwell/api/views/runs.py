"""Builds the API's views of runs, events and functions. Times are RFC 3339 in UTC."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, Literal, cast

import orjson

from stepwell.api.views.models import (
    ApprovalView,
    AttemptStatusName,
    AttemptView,
    CancelView,
    EdgeStatusName,
    EdgeView,
    ErrorView,
    EventView,
    FunctionView,
    PauseStateName,
    RunStatusName,
    RunView,
    StepStatusName,
    StepView,
    WaitingForView,
)
from stepwell.core.flow.fields import FLOW_CONTROL
from stepwell.core.plan import TRIGGER
from stepwell.core.run.approvals import Links, expires_at
from stepwell.core.run.permits import RUN
from stepwell.core.run.run import OPEN_PAUSES, UNTIL, EdgeStatus, PauseStatus, RunStatus, StepState, StepStatus
from stepwell.core.run.run_error import run_error
from stepwell.core.run.run_events import cancel_reason, cancelled_by
from stepwell.core.run.stored_links import whole_data
from stepwell.core.times import time_text
from stepwell.reader import AttemptRow, EventDetail, FunctionDetail, RunDetail, WaitingFor

# The API's names of statuses. A long run has thousands of steps, and reading the `name` of an enum is slow.
_STEP_NAMES = {status: cast(StepStatusName, status.name.lower()) for status in StepStatus}
_EDGE_NAMES = {status: cast(EdgeStatusName, status.name.lower()) for status in EdgeStatus}


def _time(ms: int | None) -> str | None:
    return None if ms is None else time_text(ms)


def event_view(detail: EventDetail, links: Callable[[], Links] | None = None) -> EventView:
    """The view of an event. `links` restores approval links in the data, on a platform that does not store them."""
    event = detail.event
    return {
        "name": event.name,
        "data": event.data if links is None else whole_data(event, lambda: links().keys),
        "user": event.user,
        "id": event.id,
        "ts": event.ts,
        "v": event.v,
        "accepted_at": time_text(detail.accepted_at),
        "not_started": orjson.loads(detail.misses) if detail.misses else [],
        "replay": detail.replay,
        "invalid": orjson.loads(detail.invalid) if detail.invalid else [],
        "erased": event.erased,
    }


_PROBLEMS = {  # by the field whose expression has no value: what is shown
    "idempotency": "idempotency: {}; the run is not de-duplicated",
    "rate_limit": "rate_limit: {}; the run is not limited",
    "singleton": "singleton: {}; the run is open beside others",
    "limit": "the key of a limit: {}; the run has a limit of its own",
    "priority": "priority: {}",
}


def function_view(detail: FunctionDetail) -> FunctionView:
    definition = orjson.loads(detail.definition)
    return {
        "id": detail.id,
        "name": definition["name"],
        "version": detail.version,
        "created_at": _time(detail.created_at),
        "triggers": definition["triggers"],
        "steps": definition["steps"],
        "flow_control": {name: definition[name] for name in FLOW_CONTROL if name in definition},
        "versions": [
            {
                "version": version.number,
                "created_at": _time(version.created_at),
                "author": version.author,
                "message": version.message,
            }
            for version in detail.versions
        ],
        "waits_by_name": detail.waits_by_name,
    }


def run_text(detail: RunDetail) -> bytes:
    """A run as JSON text, as in lists: without links."""
    return orjson.dumps(run_view(detail, read=orjson.Fragment))


def run_view(
    detail: RunDetail, links: Callable[[], Links] | None = None, *, read: Callable[[bytes], Any] = orjson.loads
) -> RunView:
    """The view of a run. With `links`, open approvals have their links.

    `read` converts the JSON text of outputs and errors; `orjson.Fragment` inserts the text unchanged.
    """
    run, plan = detail.run, detail.plan
    rows: dict[int, list[AttemptRow]] = defaultdict(list)
    for row in detail.attempts:
        rows[row.step].append(row)
    steps = {step.id: _step_view(detail, i, rows[i], read) for i, step in enumerate(plan.steps)}
    output = None
    if run.status is RunStatus.COMPLETED:
        leaves = [plan.steps[i].id for i in plan.leaves if run.steps[i].status is StepStatus.COMPLETED]
        output = {step_id: steps[step_id]["output"] for step_id in leaves}
    errors = {i: items[-1].error for i, items in rows.items() if run.steps[i].status is StepStatus.FAILED}
    view: RunView = {
        "id": run.id,
        "function_id": plan.function_id,
        "function_version": plan.version,
        "event_id": detail.event_id,
        "status": cast(RunStatusName, run.status.name.lower()),
        "user": detail.user,
        "created_at": _time(run.created_at),
        "started_at": _time(run.started_at),
        "ended_at": _time(run.ended_at),
        "output": output,
        "error": cast("ErrorView | None", run_error(plan, run, errors)),
        "rerun_of": detail.rerun_of,
        "replay": detail.replay,
        "cancelled_by": cancelled_by(plan, run),
        "reason": cast('Literal["timeout", "singleton"] | None', cancel_reason(run)),
        "timeout": cast('Literal["start", "finish"] | None', run.timed_out),
        "replaced_by": run.replaced_by,
        "cancel": [_cancel_view(detail, p) for p in plan.cancels],
        "steps": steps,
    }
    for step, approval in open_approvals(detail, links).items() if links is not None else ():
        steps[plan.steps[step].id]["approval"] = approval
    problems = [_PROBLEMS[kind].format(text) for kind, _, text in run.problems if kind in _PROBLEMS]
    if problems:
        view["problem"] = "\n".join(problems)
    if RUN in detail.waiting:
        view["waiting_for"] = _waiting_view(detail.waiting[RUN])
    return view


def _waiting_view(waiting: WaitingFor) -> WaitingForView:
    key = orjson.loads(waiting.key) if waiting.key else None
    return {"limit": waiting.limit, "key": key, "ahead": waiting.ahead, "since": _time(waiting.since)}


def open_approvals(detail: RunDetail, links: Callable[[], Links]) -> dict[int, ApprovalView]:
    """The open approvals of a run, by step index. `detail` must have been read with the approval messages."""
    run, plan = detail.run, detail.plan
    views: dict[int, ApprovalView] = {}
    for i, message in detail.asked.items():
        if run.steps[i].status is StepStatus.RUNNING:
            approve_url, decline_url = links().of(plan, run, i)
            views[i] = {
                "message": message,
                "approvers": list(plan.steps[i].runtime.approvers),
                "approve_url": approve_url,
                "decline_url": decline_url,
                "expires_at": time_text(expires_at(plan, run, i)),
            }
    return views


def _step_view(detail: RunDetail, i: int, rows: list[AttemptRow], read: Callable[[bytes], Any]) -> StepView:
    state = detail.run.steps[i]
    output = error = None
    if state.status is StepStatus.COMPLETED and rows and rows[-1].output is not None:
        output = read(rows[-1].output)
    if state.status is StepStatus.FAILED and rows and rows[-1].error is not None:
        error = read(rows[-1].error)
    attempts = [_attempt_view(row, _log(detail, i, row.attempt), read) for row in rows if row.attempt]
    if state.status in (StepStatus.QUEUED, StepStatus.RUNNING):
        attempts.append(_open_attempt_view(state, _log(detail, i, state.attempt)))
    view: StepView = {
        "status": _step_status(detail, i),
        "output": output,
        "error": error,
        "attempts": attempts,
        "next_attempt_at": _time(state.at) if state.status is StepStatus.RETRYING else None,
        "after": [_edge_view(detail, e) for e in detail.plan.steps[i].edges],
    }
    if rows and not rows[0].attempt:
        view["kept"] = True
    if i in detail.waiting:
        view["waiting_for"] = _waiting_view(detail.waiting[i])
    for kind, step, text in detail.run.problems:
        if (kind, step) == ("step_limit", i):
            view["problem"] = _PROBLEMS["limit"].format(text)
    return view


def _step_status(detail: RunDetail, i: int) -> StepStatusName:
    """The API's status of a step: a pending step with a paused edge is `waiting`."""
    state = detail.run.steps[i]
    edges = detail.plan.steps[i].edges if state.status is StepStatus.PENDING else ()
    if any(detail.run.edges[e] is EdgeStatus.PAUSED for e in edges):
        return "waiting"
    return _STEP_NAMES[state.status]


def _attempt_view(row: AttemptRow, logs: str, read: Callable[[bytes], Any]) -> AttemptView:
    return {
        "attempt": row.attempt,
        "status": cast(AttemptStatusName, row.status),
        "queued_at": _time(row.queued_at),
        "started_at": _time(row.started_at),
        "ended_at": _time(row.ended_at),
        "error": read(row.error) if row.error else None,
        "logs": logs,
    }


def _open_attempt_view(state: StepState, logs: str) -> AttemptView:
    running = state.status is StepStatus.RUNNING
    return {
        "attempt": state.attempt,
        "status": cast(AttemptStatusName, state.status.name.lower()),
        "queued_at": _time(state.queued_at),
        "started_at": _time(state.at) if running else None,
        "ended_at": None,
        "error": None,
        "logs": logs,
    }


def _edge_view(detail: RunDetail, e: int) -> EdgeView:
    """The view of an edge: status, the event that it waits for and until when, and the event that satisfied it."""
    run, plan = detail.run, detail.plan
    edge = plan.edges[e]
    view: EdgeView = {
        "step": "$trigger" if edge.parent == TRIGGER else plan.steps[edge.parent].id,
        "status": _EDGE_NAMES[run.edges[e]],
    }
    for kind, index, text in run.problems:
        if (kind, index) == ("edge", e):
            view["problem"] = text
        elif (kind, index) == (UNTIL, e):
            view["problem"] = f"wait.until: {text}"
    if edge.pause is None:
        return view
    pause, value = run.pauses[edge.pause], plan.pauses[edge.pause]
    if value.event is not None:
        view["event"] = value.event
        view["event_id"] = pause.event_id if e in pause.edges else None
    if e not in pause.edges:  # the edge shares the pause with others, but never entered it
        return view
    if pause.status in OPEN_PAUSES:
        view["until"] = time_text(pause.due_at)
    if pause.status is not PauseStatus.IDLE:
        view["state"] = cast(PauseStateName, pause.status.name.lower())
    problem = _pause_problem(detail, edge.pause)
    if problem is not None:
        view["problem"] = problem
    return view


def _cancel_view(detail: RunDetail, p: int) -> CancelView:
    """The view of a rule of `cancel`."""
    value, pause = detail.plan.pauses[p], detail.run.pauses[p]
    view: CancelView = {"event": value.event or "", "event_id": pause.event_id}
    if pause.status is not PauseStatus.IDLE:
        view["state"] = cast(PauseStateName, pause.status.name.lower())
    if pause.status in OPEN_PAUSES and value.ttl_ms:
        view["until"] = time_text(pause.due_at)
    problem = _pause_problem(detail, p)
    if problem is not None:
        view["problem"] = problem
    return view


def _pause_problem(detail: RunDetail, p: int) -> str | None:
    """The error of a wait, or the reason why the newest event did not satisfy it."""
    problems = {index: text for kind, index, text in detail.run.problems if kind == "pause"}
    return problems.get(p) or detail.mismatches.get(p)


def _log(detail: RunDetail, step: int, attempt: int) -> str:
    return detail.logs.get((step, attempt), b"").decode(errors="replace")

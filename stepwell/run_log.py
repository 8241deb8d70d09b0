"""Logs failed attempts and runs, duplicate events, and runs that events resumed or cancelled.

Log records have `fields`, for the JSON lines of a server and for the console of `stepwell dev`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from stepwell.core.events.events import Event
from stepwell.core.run.messages import Command, EmitEnd, RecordAttempt, SetTimer, Timer, TimerKind
from stepwell.core.run.run import OPEN_PAUSES, PauseStatus
from stepwell.core.run.run_error import run_error
from stepwell.core.times import time_text
from stepwell.platform import RunRecord, Transition

ATTEMPTS, EVENTS, WAITS = "stepwell.attempts", "stepwell.events", "stepwell.waits"

_runs = logging.getLogger("stepwell.runs")
_attempts = logging.getLogger(ATTEMPTS)
_events = logging.getLogger(EVENTS)
_waits = logging.getLogger(WAITS)
_MAX_MESSAGE = 500  # characters


def log_transition(transition: Transition) -> None:
    """Logs failed and lost attempts of a transition, the failure of the run, and events that satisfied waits."""
    for command in transition.commands:
        if isinstance(command, RecordAttempt):
            if command.error is not None:
                _log_failed_attempt(transition.record, command, transition.commands)
        elif isinstance(command, EmitEnd) and command.status == "failed":
            _log_failed_run(transition.record)
    if transition.record.plan.pauses and _waits.isEnabledFor(logging.DEBUG):
        _log_satisfied_waits(transition)


def _log_failed_attempt(record: RunRecord, command: RecordAttempt, others: Sequence[Command]) -> None:
    """Logs a failed or lost attempt. `others` are the commands of the transition, which may set a timer for a retry."""
    error, plan, step = command.error, record.plan, record.plan.steps[command.step].id
    if error is None or command.status not in ("failed", "lost"):
        return
    due = next(
        (other.due_at for other in others if isinstance(other, SetTimer) and _is_retry(other.timer, command)), None
    )
    fields = {
        "function": plan.function_id,
        "version": plan.version,
        "run": record.run.id,
        "step": step,
        "attempt": command.attempt,
        "status": command.status,
        "kind": error.kind,
        "error": _first_line(error.message),
        "next_attempt_at": None if due is None else time_text(due),
    }
    text, level = "attempt %s of step %s of %s %s: %s: %s", logging.WARNING if due is None else logging.INFO
    values = (command.attempt, step, plan.function_id, command.status, error.kind, fields["error"])
    _attempts.log(level, text, *values, extra={"fields": fields})


def _log_failed_run(record: RunRecord) -> None:
    run, plan = record.run, record.plan
    error = run_error(plan, run, record.errors) or {}
    step, kind, message = error.get("step"), error.get("kind"), _first_line(str(error.get("message")))
    number = next((run.steps[i].attempt for i, item in enumerate(plan.steps) if item.id == step), None)
    fields = {"function": plan.function_id, "version": plan.version, "run": run.id, "step": step, "attempt": number}
    fields |= {"kind": kind, "error": message}
    text = "run %s of %s failed at step %s: %s: %s"
    _runs.warning(text, run.id, plan.function_id, step, kind, message, extra={"fields": fields})


def _log_satisfied_waits(transition: Transition) -> None:
    """Logs each wait that an event satisfied: the run, and the steps that waited; none if the event cancelled it."""
    plan, before, run = transition.record.plan, transition.before.run, transition.record.run
    for pause, old, new in zip(plan.pauses, before.pauses, run.pauses, strict=True):
        if new.status is PauseStatus.MATCHED and old.status in OPEN_PAUSES:
            steps = dict.fromkeys(plan.steps[plan.edges[e].step].id for e in new.edges)
            fields: dict[str, Any] = {"event": new.event_id, "name": pause.event, "function": plan.function_id}
            fields |= {"run": run.id, "steps": list(steps), "cancels": pause.cancels}
            text = "event %s %s satisfied a wait of run %s of %s"
            _waits.debug(text, pause.event, new.event_id, run.id, plan.function_id, extra={"fields": fields})


def log_known_event(event: Event) -> None:
    """Logs a duplicate event, which starts nothing."""
    _events.debug("event %s %s was accepted before", event.name, event.id, extra={"fields": {"event": event}})


def _is_retry(timer: Timer, ended: RecordAttempt) -> bool:
    return timer == Timer(TimerKind.RETRY, ended.step, ended.attempt)


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0][:_MAX_MESSAGE] if lines else ""

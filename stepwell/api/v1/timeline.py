"""The timeline of a user: entries, their order, and cursors."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import cast

import orjson

from stepwell.api.http.problem import Problem
from stepwell.api.views import user_models as models
from stepwell.api.views.models import AttemptStatusName, RunStatusName
from stepwell.core.plan import Plan
from stepwell.core.run.run import RunStatus
from stepwell.core.times import time_text

_EVENT, _RUN, _STEP = range(3)

Mark = tuple[int, int, int, int, int]  # time (ms), kind of entry, position, step, attempt: the order of a timeline


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a user's timeline. `mark` orders the entries."""

    mark: Mark
    shown: models.TimelineEntry


@dataclass(frozen=True, slots=True)
class UserRun:
    """A run of an event of the user. `ended_at`: ms since the epoch."""

    run_id: str
    function: str
    version: int
    event_id: str
    status: RunStatus
    ended_at: int | None
    rerun_of: str | None
    replay: str | None


@dataclass(frozen=True, slots=True)
class EndedAttempt:
    """An ended attempt of a step in a user's run. `plan` is the plan of the run, `error` is JSON."""

    run_id: str
    function: str
    plan: Plan
    step: int
    attempt: int
    status: str
    ended_at: int
    error: bytes | None


def event_entry(event_id: str, name: str, at: int, position: int) -> Entry:
    """The entry of an event. `at` is the time at which it was accepted (ms)."""
    shown: models.TimelineEvent = {"type": "event", "at": time_text(at), "event_id": event_id, "name": name}
    return Entry((at, _EVENT, position, 0, 0), shown)


def run_entry(at: int, position: int, run: UserRun) -> Entry:
    """The entry of a run. `at` is the time at which it was created (ms)."""
    shown: models.TimelineRun = {
        "type": "run",
        "at": time_text(at),
        "run_id": run.run_id,
        "function_id": run.function,
        "function_version": run.version,
        "event_id": run.event_id,
        "status": cast(RunStatusName, run.status.name.lower()),
        "ended_at": None if run.ended_at is None else time_text(run.ended_at),
        "rerun_of": run.rerun_of,
        "replay": run.replay,
    }
    return Entry((at, _RUN, position, 0, 0), shown)


def step_entry(position: int, ended: EndedAttempt) -> Entry:
    """The entry of an ended attempt. `position` is the position of the run."""
    value = None if ended.error is None else orjson.loads(ended.error)
    shown: models.TimelineStep = {
        "type": "step",
        "at": time_text(ended.ended_at),
        "run_id": ended.run_id,
        "function_id": ended.function,
        "step": ended.plan.steps[ended.step].id,
        "attempt": ended.attempt,
        "status": cast(AttemptStatusName, ended.status),
        "error": None if value is None else {"kind": value["kind"], "message": value["message"]},
    }
    return Entry((ended.ended_at, _STEP, position, ended.step, ended.attempt), shown)


def cursor_of(mark: Mark) -> str:
    """The cursor after the entry with this mark."""
    return base64.urlsafe_b64encode(".".join(map(str, mark)).encode()).decode().rstrip("=")


def mark_of(cursor: str) -> Mark:
    """The mark of the entry before a cursor. Raises Problem 400."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        numbers = text.split(".")
        if not all(number.isdigit() and len(number) < 19 for number in numbers):
            raise ValueError(text)
        at, kind, position, step, attempt = map(int, numbers)
    except ValueError:
        raise Problem(400, f"after={cursor} is not the `next` of a timeline") from None
    return at, kind, position, step, attempt

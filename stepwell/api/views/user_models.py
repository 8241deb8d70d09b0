"""The shapes of what the API answers about users: who they are, what happened to them, what was erased."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict

from stepwell.api.views.models import AttemptStatusName, RunStatusName, Time


class TraitView(TypedDict):
    """The latest value, and when the event that told it was accepted."""

    value: Any
    at: Time


class UserName(TypedDict):
    """`id`: the canonical one; `ids`: all, by external_id, id, email and phone."""

    id: str
    ids: dict[str, list[str]]


class UserView(UserName):
    """`known_since`: when the first event that told more than one id of it was accepted."""

    traits: dict[str, TraitView]
    known_since: Time


class UserDetail(UserView):
    first_seen: Time
    last_seen: Time


class UserList(TypedDict):
    data: list[UserView | UserDetail]
    next: str | None


class TimelineEvent(TypedDict):
    type: Literal["event"]
    at: Time
    event_id: str
    name: str


class TimelineRun(TypedDict):
    """`at`: when the run was made; `status`: as it is now."""

    type: Literal["run"]
    at: Time
    run_id: str
    function_id: str
    function_version: int
    event_id: str
    status: RunStatusName
    ended_at: Time | None
    rerun_of: str | None
    replay: str | None


class TimelineError(TypedDict):
    kind: str
    message: str


class TimelineStep(TypedDict):
    """`at`: when the attempt ended."""

    type: Literal["step"]
    at: Time
    run_id: str
    function_id: str
    step: str
    attempt: int
    status: AttemptStatusName
    error: TimelineError | None


TimelineEntry = TimelineEvent | TimelineRun | TimelineStep


class Timeline(TypedDict):
    data: list[TimelineEntry]
    next: str | None


class ErasedCounts(TypedDict):
    """`runs_cancelled`: those that had not ended. `attempts`: whose outputs, errors or logs were erased."""

    events: int
    runs: int
    runs_cancelled: int
    attempts: int


class ErasedView(UserName):
    """What one request has erased. `done`: nothing is left; if it is false, ask again to go on."""

    erased: ErasedCounts
    done: bool

"""The API's response models for users: ids and traits, timelines, erasure."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict

from stepwell.api.views.models import AttemptStatusName, RunStatusName, Time


class TraitView(TypedDict):
    """The latest value of a trait, and the time at which the event with it was accepted."""

    value: Any
    at: Time


class UserName(TypedDict):
    """`id` is the canonical id; `ids` are all ids by kind: external_id, id, email and phone."""

    id: str
    ids: dict[str, list[str]]


class UserView(UserName):
    """A user. `known_since` is the time of the first event with several ids, or with traits, of the user."""

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
    """A run in a timeline. `at` is the time at which it was created; `status` is the current status."""

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
    """An attempt in a timeline. `at` is the time at which it ended."""

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
    """Counts of an erasure. `runs_cancelled` are open runs that were cancelled; `attempts` are attempts whose output,
    error or log was erased."""

    events: int
    runs: int
    runs_cancelled: int
    attempts: int


class ErasedView(UserName):
    """The result of one erasure request. If `done` is false, data is left; repeat the request."""

    erased: ErasedCounts
    done: bool

"""The shapes that the API answers with; the OpenAPI document is generated from them."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

RunStatusName = Literal["running", "completed", "failed", "cancelled"]
StepStatusName = Literal[
    "pending", "waiting", "queued", "running", "retrying", "completed", "failed", "skipped", "cancelled"
]
AttemptStatusName = Literal["queued", "running", "completed", "failed", "lost", "cancelled"]
EdgeStatusName = Literal["pending", "paused", "satisfied", "dead"]
PauseStateName = Literal["delayed", "awaiting", "elapsed", "matched", "expired", "dropped"]
Time = str  # RFC 3339


class NotStarted(TypedDict):
    """A function whose trigger names the event, and whose expression was not true, or whose `idempotency` has a run of
    this value already (`run_id`). `problem`: why it had no value, or is no reason to start."""

    function_id: str
    expression: str
    problem: str | None
    run_id: NotRequired[str]


class InvalidView(TypedDict):
    """Something in an event that is not as its type says: the place in it, and what is wrong there."""

    pointer: str
    message: str


class EventView(TypedDict):
    name: str
    data: dict[str, Any]
    user: dict[str, Any]
    id: str
    ts: int
    v: str | None
    accepted_at: Time
    not_started: list[NotStarted]
    replay: str | None
    invalid: list[InvalidView]  # the first 20 things
    erased: bool


class FailedEdgeView(TypedDict):
    """The edge whose `if` had no value: entry `index` of the `after` list of `step`."""

    step: str
    after: str  # a step, or $trigger
    index: int
    problem: str


class ErrorView(TypedDict):
    """Why an attempt, a step or a run failed. Of a run: `step` is the one that failed; or, if `kind` is
    `condition_failed`, the one that `edge` leads to, which was not decided since its `if` has no value."""

    kind: str
    message: str
    status: int | None
    output: Any
    step: NotRequired[str]
    edge: NotRequired[FailedEdgeView]


class AttemptView(TypedDict):
    attempt: int
    status: AttemptStatusName
    queued_at: Time | None
    started_at: Time | None
    ended_at: Time | None
    error: ErrorView | None
    logs: str


class EdgeView(TypedDict):
    """One entry of `after`: how it stands, what it waits for and until when, why an expression had no value."""

    step: str
    status: EdgeStatusName
    state: NotRequired[PauseStateName]
    until: NotRequired[Time | None]
    event: NotRequired[str]
    event_id: NotRequired[str | None]
    problem: NotRequired[str]


class CancelView(TypedDict):
    """A rule of `cancel`: how its wait stands, until when it holds, which event it was, why it was no match."""

    event: str
    state: NotRequired[PauseStateName]
    until: NotRequired[Time]
    event_id: str | None
    problem: NotRequired[str]


class ApprovalView(TypedDict):
    """What people are asked, while they may decide."""

    message: str
    approvers: list[str]
    approve_url: str
    decline_url: str
    expires_at: Time


class StepView(TypedDict):
    """`kept`: it did not run here, but ended so in the run that this one goes on from."""

    status: StepStatusName
    kept: NotRequired[bool]
    approval: NotRequired[ApprovalView]
    output: Any
    error: ErrorView | None
    attempts: list[AttemptView]
    next_attempt_at: Time | None
    after: list[EdgeView]


class RunView(TypedDict):
    id: str
    function_id: str
    function_version: int
    event_id: str
    status: RunStatusName
    user: str | None
    created_at: Time | None
    started_at: Time | None
    ended_at: Time | None
    output: dict[str, Any] | None
    error: ErrorView | None
    rerun_of: str | None
    replay: str | None
    cancelled_by: str | None  # the event that did
    cancel: list[CancelView]
    problem: NotRequired[str]  # why `idempotency` had no value
    steps: dict[str, StepView]


class OpenApproval(ApprovalView):
    run_id: str
    function_id: str
    function_version: int
    step_id: str
    user: str | None
    requested_at: Time


class ApprovalList(TypedDict):
    """A page has those of at most `limit` runs."""

    data: list[OpenApproval]
    next: str | None


class DecisionView(TypedDict):
    run_id: str
    step_id: str
    decision: Literal["approved", "declined"]
    approved: bool
    comment: str | None
    by: str | None
    decided_at: Time


class VersionView(TypedDict):
    version: int
    created_at: Time | None
    author: str
    message: str


class FunctionView(TypedDict):
    """`waits_by_name`: how many open waits are compared with each event of their name, since their `match` has no
    equality to find them by; null where they are not counted (on AWS)."""

    id: str
    name: str
    version: int | None
    created_at: Time | None
    triggers: list[dict[str, Any]]
    steps: dict[str, dict[str, Any]]
    versions: list[VersionView]
    waits_by_name: int | None


class EventList(TypedDict):
    data: list[EventView]
    next: str | None


class RunList(TypedDict):
    data: list[RunView]
    next: str | None


class FunctionList(TypedDict):
    data: list[FunctionView]
    next: str | None


class ReplayedView(TypedDict):
    """`already`: this replay has run this event before, as this run. `unknown event`: there is none of this id."""

    event_id: str
    status: Literal["started", "already", "unknown event"]
    run_id: str | None


class ReplayView(TypedDict):
    replay: str
    function_id: str
    function_version: int
    events: list[ReplayedView]


class Accepted(TypedDict):
    ids: list[str]
    status: Literal[200]


class BrokenDefinition(TypedDict):
    definition: str
    message: NotRequired[str]  # with a key that may manage


class Health(TypedDict):
    """`degraded`: these definitions are not in service, or in an older version only."""

    status: Literal["ok", "degraded"]
    version: str
    definitions: NotRequired[list[BrokenDefinition]]


class ProblemView(TypedDict):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    message: str
    error: str
    errors: NotRequired[list[dict[str, Any]]]

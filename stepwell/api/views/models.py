"""The API's response models. The OpenAPI document is generated from them."""

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
    """A function that the event did not start, although a trigger names the event.

    The trigger's `expression` was not true, the function is paused, or one of its checks refused the event: a run with
    the same value of `idempotency` exists (`run_id`), one with the same key of `singleton` is open (`run_id`), or the
    `rate_limit` is reached. `problem` is the error of the expression, or the reason why the function did not start.
    Lists of events leave out the paused functions that keep an event until they are resumed.
    """

    function_id: str
    expression: str
    problem: str | None
    run_id: NotRequired[str]


class InvalidView(TypedDict):
    """A place in an event that does not match the schema, and the error."""

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
    invalid: list[InvalidView]  # the first 20 errors
    erased: bool


class FailedEdgeView(TypedDict):
    """The edge whose `if` could not be evaluated: entry `index` of the `after` list of `step`."""

    step: str
    after: str  # a step, or $trigger
    index: int
    problem: str


class ErrorView(TypedDict):
    """The reason why an attempt, a step or a run failed.

    For a run, `step` is the step that failed. If `kind` is `condition_failed`, it is the step after `edge`, whose `if`
    could not be evaluated.
    """

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
    """One entry of `after`: the status, the event that it waits for and until when, and the error of an expression."""

    step: str
    status: EdgeStatusName
    state: NotRequired[PauseStateName]
    until: NotRequired[Time | None]
    event: NotRequired[str]
    event_id: NotRequired[str | None]
    problem: NotRequired[str]


class CancelView(TypedDict):
    """A rule of `cancel`: the state and end of the wait, the event that matched, and why another did not match."""

    event: str
    state: NotRequired[PauseStateName]
    until: NotRequired[Time]
    event_id: str | None
    problem: NotRequired[str]


class ApprovalView(TypedDict):
    """An open approval of a step, with the links to decide on it."""

    message: str
    approvers: list[str]
    approve_url: str
    decline_url: str
    expires_at: Time


class WaitingForView(TypedDict):
    """The limit that a run or a step waits for. `key`: the value of the limit's key; null if it has none. `ahead`: the
    number of others under the same key that come first. `since`: when it began to wait."""

    limit: str
    key: Any
    ahead: int
    since: Time | None


class StepView(TypedDict):
    """A step of a run. `kept`: the step did not run here; the result is that of the run that was rerun from a step."""

    status: StepStatusName
    kept: NotRequired[bool]
    waiting_for: NotRequired[WaitingForView]
    problem: NotRequired[str]  # why the key of a limit has no value
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
    cancelled_by: str | None  # the id of the event that cancelled the run
    reason: Literal["timeout", "singleton"] | None  # why the engine cancelled the run
    timeout: Literal["start", "finish"] | None  # the limit of `timeouts` that the run exceeded
    replaced_by: str | None  # the run that cancelled this one, because of `singleton`
    cancel: list[CancelView]
    waiting_for: NotRequired[WaitingForView]
    problem: NotRequired[str]  # the errors of `idempotency`, of keys and of `priority`, a line each
    steps: dict[str, StepView]


class OpenApproval(ApprovalView):
    run_id: str
    function_id: str
    function_version: int
    step_id: str
    user: str | None
    requested_at: Time


class ApprovalList(TypedDict):
    """A page of open approvals. `limit` counts runs; a run may have several approvals."""

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
    """A function with all versions.

    `flow_control` are the fields of the definition that control its runs, such as `idempotency` and `rate_limit`.
    `waits_by_name` is the number of open waits whose `match` has no equality; each event of their name is compared with
    all of them. It is null on AWS, where they are not counted.
    """

    id: str
    name: str
    version: int | None
    created_at: Time | None
    triggers: list[dict[str, Any]]
    steps: dict[str, dict[str, Any]]
    flow_control: dict[str, Any]
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
    """A replayed event. `already`: the replay has started this run before. `unknown event`: no event has this id.
    `not started`: `singleton` allows no further run now, with the reason in `problem`.
    """

    event_id: str
    status: Literal["started", "already", "unknown event", "not started"]
    run_id: str | None
    problem: NotRequired[str]


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
    message: NotRequired[str]  # only for requests with a key of the scope manage


class Health(TypedDict):
    """The health of the server. `degraded`: `definitions` are not in service, or only in an older version."""

    status: Literal["ok", "degraded"]
    version: str
    definitions: NotRequired[list[BrokenDefinition]]


class ProblemView(TypedDict):
    """A problem document (RFC 9457). `message` equals `detail`; `error` is the title in snake case."""

    type: str
    title: str
    status: int
    detail: str
    message: str
    error: str
    errors: NotRequired[list[dict[str, Any]]]

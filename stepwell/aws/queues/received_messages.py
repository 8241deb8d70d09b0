"""Parses the messages of the queue `outcomes`: one class for each kind of message.

Parsing does not check whether a message is genuine. The handlers (`engine.outcome_messages`) check tokens and compare
the content with the run. The senders are the engine (`messages`), Lambda (destinations) and ECS (task state changes).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stepwell.aws.queues.messages import Facts, far_timer_key, read_timer
from stepwell.aws.table.keys import Key
from stepwell.core.plain_data import immutable
from stepwell.core.run.messages import Outcome, Timer
from stepwell.core.run.outcome import failure

Json = dict[str, Any]


@immutable
class AttemptName:
    """The attempt that a message is about. `token`: proves that the sender received the attempt's input."""

    run_id: str
    step_id: str
    number: int
    token: object


@immutable
class Destination:
    """Lambda's record of an asynchronous invocation. `is_expired`: it waited too long and was never started.

    https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
    """

    attempt: AttemptName
    request_id: object
    is_expired: bool
    record: Json


@immutable
class TaskStopped:
    """An ECS event about a task that has changed state."""

    event: Json


@immutable
class OutcomeReported:
    """An attempt failed before it was started."""

    attempt: AttemptName
    outcome: Outcome


@immutable
class StartAgain:
    """An attempt must be started again, because the first start failed."""

    attempt: AttemptName


@immutable
class StopContainers:
    """The containers of a cancelled run must be stopped."""

    run_id: str


@immutable
class FactsOverdue:
    """The overdue facts that the sweeper found for a run. `rows`: in the format of `engine.sweep.from_rows`."""

    run_id: str
    rows: Facts
    token: object


@immutable
class TimerDue:
    """A timer is due since `due` (ms). `item`: key of a far timer's item; None for a near timer."""

    run_id: str
    timer: Timer
    due: int
    item: Key | None


@immutable
class TickDue:
    """A tick of a cron trigger at `at`, to be handled at `due`; both in ms since the epoch."""

    function_id: str
    cron: str
    timezone: str
    at: int
    due: int
    token: object


@immutable
class ContinueScan:
    """Events after the position `after` may satisfy a wait."""

    run_id: str
    pause: int
    after: int
    token: object


@immutable
class WakeMore:
    """An event may wake more runs: those whose waits come after the sort key `after` in a partition."""

    event_id: str
    partition: str
    after: str
    token: object


@immutable
class ReleaseEvents:
    """Events that were kept for a function must be released, because it is no longer paused. They follow the sort key
    `after`."""

    function_id: str
    after: str | None


@immutable
class CancelRuns:
    """The open runs of a function must be cancelled, if `before` is given only those below that position."""

    function_id: str
    before: int | None
    token: object


@immutable
class SendEvent:
    """One of the engine's own events must be sent. `text`: the event as JSON."""

    text: str
    token: object


@immutable
class RunEnded:
    """A process ended a run and may have died before it sent everything that follows."""

    run_id: str


@immutable
class LimitsChanged:
    """Values of limits may have changed. The limits to look at follow the place `after`."""

    after: str | None


@immutable
class LimitDue:
    """One key of a throttle lets the next start in at `due` (ms). `text`: the key as JSON."""

    limit_id: str
    key: bytes
    text: str
    due: int


Message = (
    Destination
    | TaskStopped
    | OutcomeReported
    | StartAgain
    | StopContainers
    | FactsOverdue
    | TimerDue
    | TickDue
    | ContinueScan
    | WakeMore
    | ReleaseEvents
    | CancelRuns
    | SendEvent
    | RunEnded
    | LimitsChanged
    | LimitDue
)


def parse_message(body: Any) -> Message:
    """The message in a JSON body. Raises KeyError, TypeError, ValueError."""
    if "requestPayload" in body:
        return _destination(body)
    if body.get("detail-type") == "ECS Task State Change":
        return TaskStopped(body)
    kind = body["stepwell"]
    if kind not in _KINDS:
        raise ValueError(f"unknown kind of message: {kind!r}")
    return _KINDS[kind](body)


def run_of(message: Message) -> object:
    """The id of the run that a message is about; None if the message contains no run id."""
    match message:
        case Destination() | OutcomeReported() | StartAgain():
            return message.attempt.run_id
        case StopContainers() | FactsOverdue() | TimerDue() | ContinueScan() | RunEnded():
            return message.run_id
        case _:
            return None


def _destination(body: Json) -> Destination:
    payload, context = body["requestPayload"], body.get("requestContext", {})
    ctx = (payload["input"] if payload.get("stepwell") == "http" else payload)["ctx"]
    attempt = AttemptName(ctx["run_id"], ctx["step_id"], ctx["attempt"], ctx.get("token"))
    return Destination(attempt, context.get("requestId"), context.get("condition") == "EventAgeExceeded", body)


def _attempt(body: Json) -> AttemptName:
    return AttemptName(body["run"], body["step"], body["attempt"], body["token"])


def _outcome(body: Json) -> OutcomeReported:
    error = body["error"]
    return OutcomeReported(_attempt(body), failure(error["kind"], error["message"], retryable=error["retryable"]))


def _timer(body: Json) -> TimerDue:
    run_id, timer = read_timer(body)
    return TimerDue(run_id, timer, body.get("due", 0), far_timer_key(body))


def _tick(body: Json) -> TickDue:
    name = (body["function"], body["cron"], body["timezone"])
    return TickDue(*name, body["at"], body["due"], body.get("token"))


_KINDS: dict[str, Callable[[Json], Message]] = {
    "outcome": _outcome,
    "again": lambda body: StartAgain(_attempt(body)),
    "stop": lambda body: StopContainers(body["run"]),
    "sweep": lambda body: FactsOverdue(body["run"], body["facts"], body.get("token")),
    "timer": _timer,
    "tick": _tick,
    "look": lambda body: ContinueScan(body["run"], body["pause"], body["after"], body.get("token")),
    "wake": lambda body: WakeMore(body["event"], body["partition"], body["after"], body.get("token")),
    "release": lambda body: ReleaseEvents(body["function"], body["after"]),
    "cancel": lambda body: CancelRuns(body["function"], body["before"], body["token"]),
    "tell": lambda body: SendEvent(body["event"], body["token"]),
    "ended": lambda body: RunEnded(body["run"]),
    "limit": lambda body: LimitDue(body["limit"], bytes.fromhex(body["key"]), body["text"], body["due"]),
    "limits": lambda body: LimitsChanged(body["after"]),
}

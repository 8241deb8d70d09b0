"""The messages of the queue `outcomes` as values: one class for each kind, made from the message's JSON.

What stands in a message is only read here, not believed: tokens are checked, and runs are asked, by the handlers
(`engine.outcome_messages`). What writes these messages is `messages`, Lambda (destinations) and ECS (stopped tasks).
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
    """Which attempt a message is about. `token`: what proves that the sender was given its input."""

    run_id: str
    step_id: str
    number: int
    token: object


@immutable
class Destination:
    """Lambda's record of an asynchronous invocation. `is_expired`: it was never started, since it waited too long.
    https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html"""

    attempt: AttemptName
    request_id: object
    is_expired: bool
    record: Json


@immutable
class TaskStopped:
    """ECS's event of a task that has changed its state."""

    event: Json


@immutable
class OutcomeReported:
    """An attempt failed before it was started."""

    attempt: AttemptName
    outcome: Outcome


@immutable
class StartAgain:
    """An attempt is to be started once more, since it never was."""

    attempt: AttemptName


@immutable
class StopContainers:
    run_id: str


@immutable
class FactsOverdue:
    """What the sweeper found of a run. `rows`: as `engine.sweep.from_rows` takes them."""

    run_id: str
    rows: Facts
    token: object


@immutable
class TimerDue:
    """`item`: that of a far timer, which was due at `due` (ms); None of a near timer."""

    run_id: str
    timer: Timer
    due: int
    item: Key | None


@immutable
class TickDue:
    """A tick of a cron trigger, which is looked at `due`; all times in ms since the epoch."""

    function_id: str
    cron: str
    timezone: str
    at: int
    due: int
    token: object


@immutable
class LookFurther:
    """Events behind the position `after` may satisfy a wait."""

    run_id: str
    pause: int
    after: int
    token: object


@immutable
class WakeMore:
    """An event may wake more runs: those whose waits stand behind `after` in a partition."""

    event_id: str
    partition: str
    after: str
    token: object


@immutable
class ReleaseEvents:
    """Events may be kept for a function that is not paused any more, behind `after`."""

    function_id: str
    after: str | None


@immutable
class CancelRuns:
    """The open runs of a function are to be cancelled, those before a position."""

    function_id: str
    before: int | None
    token: object


@immutable
class TellEvent:
    """One of the engine's own events is to be sent. `text`: its JSON."""

    text: str
    token: object


@immutable
class RunEnded:
    """A run may have been ended by a process that died before it told of it."""

    run_id: str


Message = (
    Destination
    | TaskStopped
    | OutcomeReported
    | StartAgain
    | StopContainers
    | FactsOverdue
    | TimerDue
    | TickDue
    | LookFurther
    | WakeMore
    | ReleaseEvents
    | CancelRuns
    | TellEvent
    | RunEnded
)


def parse_message(body: Any) -> Message:
    """The message whose JSON this is. Raises KeyError, TypeError, ValueError."""
    if "requestPayload" in body:
        return _destination(body)
    if body.get("detail-type") == "ECS Task State Change":
        return TaskStopped(body)
    kind = body["stepwell"]
    if kind not in _KINDS:
        raise ValueError(f"a message of the unknown kind {kind!r}")
    return _KINDS[kind](body)


def run_of(message: Message) -> object:
    """The id of the run that a message is about; None if it is about none, or its run is not known by its text."""
    match message:
        case Destination() | OutcomeReported() | StartAgain():
            return message.attempt.run_id
        case StopContainers() | FactsOverdue() | TimerDue() | LookFurther() | RunEnded():
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
    "look": lambda body: LookFurther(body["run"], body["pause"], body["after"], body.get("token")),
    "wake": lambda body: WakeMore(body["event"], body["partition"], body["after"], body.get("token")),
    "release": lambda body: ReleaseEvents(body["function"], body["after"]),
    "cancel": lambda body: CancelRuns(body["function"], body["before"], body["token"]),
    "tell": lambda body: TellEvent(body["event"], body["token"]),
    "ended": lambda body: RunEnded(body["run"]),
}

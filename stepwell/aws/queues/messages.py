"""What the engine sends to itself, through the queue `outcomes`: timers that are due, ticks, pages of waits, attempts
that never started, containers to be stopped. JSON objects that say in `stepwell` what they are."""

from __future__ import annotations

from typing import Any

import orjson

from stepwell.aws.table.keys import Key, timer_key
from stepwell.core.run.messages import Outcome, Timer, TimerKind

CANCEL = "cancel"
Facts = list[list[str | int]]  # each its name, then its numbers
MAX_DELAY_MS = 14 * 60_000  # SQS takes 15 minutes


def timer_message(run_id: str, timer: Timer, due: int, shard: int | None = None) -> bytes:
    """`shard`: where the item of a far timer stands."""
    name = [int(timer.kind), timer.index, timer.attempt]
    where = {} if shard is None else {"shard": shard}
    return orjson.dumps({"stepwell": "timer", "run": run_id, "timer": name, "due": due, **where})


def read_timer(body: dict[str, Any]) -> tuple[str, Timer]:
    kind, index, attempt = body["timer"]
    return body["run"], Timer(TimerKind(kind), index, attempt)


def far_timer_key(body: dict[str, Any]) -> Key | None:
    """The item that a timer's message was made of; None of a near timer."""
    if "shard" not in body:
        return None
    run_id, timer = read_timer(body)
    return timer_key(run_id, timer, int(body["due"]), int(body["shard"]))


def tick_name(function_id: str, cron: str, timezone: str, at: int) -> tuple[str, str, int]:
    """What the token of a tick is of; no step has such an id."""
    return function_id, f"tick {cron} {timezone} {at}", 0


def tick_message(function_id: str, cron: str, timezone: str, at: int, token: str, due: int | None = None) -> bytes:
    """`due`: if it is looked at once more, later than at its time. `token`: of `tick_name`, since every step may send
    messages."""
    name = {"function": function_id, "cron": cron, "timezone": timezone}
    return orjson.dumps({"stepwell": "tick", **name, "at": at, "due": due or at, "token": token})


def wake_name(event_id: str, partition: str, after: str) -> tuple[str, str, int]:
    """What the token of a wake is of."""
    return event_id, f"wake {partition} {after}", 0


def wake_message(event_id: str, partition: str, after: str, token: str) -> bytes:
    """That an event may wake more runs. `token`: of `wake_name`; there are events that may wake nothing."""
    name = {"event": event_id, "partition": partition, "after": after}
    return orjson.dumps({"stepwell": "wake", **name, "token": token})


def look_name(run_id: str, pause: int, after: int) -> tuple[str, str, int]:
    """What the token of a look is of; no step has such an id."""
    return run_id, f"look {pause}", after


def look_message(run_id: str, pause: int, after: int, token: str) -> bytes:
    """That events behind this position may satisfy a wait. `token`: of `look_name`; those before it would be passed
    over."""
    name = {"run": run_id, "pause": pause, "after": after}
    return orjson.dumps({"stepwell": "look", **name, "token": token})


def release_message(function_id: str, after: str | None) -> bytes:
    """That events may be kept for a function that is not paused any more."""
    return orjson.dumps({"stepwell": "release", "function": function_id, "after": after})


def sweep_name(run_id: str, facts: Facts) -> tuple[str, str, int]:
    """What the token of a sweep is of."""
    return run_id, f"sweep {facts}", 0


def sweep_message(run_id: str, facts: Facts, token: str) -> bytes:
    """That these facts should have come for a run. `token`: of `sweep_name`, since no step may say what is lost."""
    return orjson.dumps({"stepwell": "sweep", "run": run_id, "facts": facts, "token": token})


def tell_name(event_id: str, event: str) -> tuple[str, str, int]:
    """What the token of one of the engine's own events is of."""
    return event_id, f"tell {event}", 0


def tell_message(event: str, token: str) -> bytes:
    """That one of the engine's own events is to be sent. `token`: of `tell_name`."""
    return orjson.dumps({"stepwell": "tell", "event": event, "token": token})


def ended_message(run_id: str) -> bytes:
    """That a run may have been ended by somebody who could not tell of it to the end."""
    return orjson.dumps({"stepwell": "ended", "run": run_id})


def cancel_message(function_id: str, before: int | None, token: str) -> bytes:
    """That the open runs of a function are to be cancelled, those before a position. `token`: of (function, CANCEL, 0),
    since every step may send messages."""
    return orjson.dumps({"stepwell": CANCEL, "function": function_id, "before": before, "token": token})


def again_message(run_id: str, step: str, attempt: int, token: str, due: int) -> bytes:
    """That an attempt is to be started once more, since it never was."""
    name = {"run": run_id, "step": step, "attempt": attempt, "token": token}
    return orjson.dumps({"stepwell": "again", **name, "due": due})


def stop_message(run_id: str, due: int) -> bytes:
    """That containers of a cancelled run may still be there."""
    return orjson.dumps({"stepwell": "stop", "run": run_id, "due": due})


def outcome_message(run_id: str, step: str, attempt: int, token: str, outcome: Outcome) -> bytes:
    """That an attempt failed before it was started."""
    error = outcome.error
    assert error is not None
    return orjson.dumps(
        {
            "stepwell": "outcome",
            "run": run_id,
            "step": step,
            "attempt": attempt,
            "token": token,
            "error": {"kind": error.kind, "message": error.message, "retryable": outcome.retryable},
        }
    )


def delay_s(due: int, now: int) -> int:
    """Whole seconds until a time, rounded up: SQS knows no others, and early would be wrong."""
    return max(0, -((now - due) // 1000))


def entry(body: bytes, delay: int = 0) -> dict[str, Any]:
    """As `outbox.send_messages` takes it."""
    message: dict[str, Any] = {"MessageBody": body.decode()}
    return {**message, "DelaySeconds": delay} if delay else message

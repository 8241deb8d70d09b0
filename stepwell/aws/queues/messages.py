"""Creates the messages that the engine sends to itself through the queue `outcomes`.

Each is a JSON object whose field `stepwell` contains the kind. Steps may send to the queue as well. So a message that
would let a step do something forbidden contains a token, an HMAC of the `..._name` of the message.
"""

from __future__ import annotations

from typing import Any

import orjson

from stepwell.aws.table.keys import Key, timer_key
from stepwell.core.run.messages import Outcome, Timer, TimerKind

CANCEL = "cancel"
Facts = list[list[str | int]]  # for each fact the kind, then the numbers
MAX_DELAY_MS = 14 * 60_000  # SQS allows 15 minutes


def timer_message(run_id: str, timer: Timer, due: int, shard: int | None = None) -> bytes:
    """A timer that is due at `due` (ms). `shard`: the shard that contains the item of a far timer."""
    name = [int(timer.kind), timer.index, timer.attempt]
    where = {} if shard is None else {"shard": shard}
    return orjson.dumps({"stepwell": "timer", "run": run_id, "timer": name, "due": due, **where})


def read_timer(body: dict[str, Any]) -> tuple[str, Timer]:
    """The run id and the timer in a timer's message."""
    kind, index, attempt = body["timer"]
    return body["run"], Timer(TimerKind(kind), index, attempt)


def far_timer_key(body: dict[str, Any]) -> Key | None:
    """The key of the far timer's item from which a message was made; None for a near timer."""
    if "shard" not in body:
        return None
    run_id, timer = read_timer(body)
    return timer_key(run_id, timer, int(body["due"]), int(body["shard"]))


def tick_name(function_id: str, cron: str, timezone: str, at: int) -> tuple[str, str, int]:
    """The content of a tick's token. It differs from the name of any attempt, because step ids have no spaces."""
    return function_id, f"tick {cron} {timezone} {at}", 0


def tick_message(function_id: str, cron: str, timezone: str, at: int, token: str, due: int | None = None) -> bytes:
    """A tick of a cron trigger at `at` (ms). `due`: when it is handled, if later. `token`: of `tick_name`."""
    name = {"function": function_id, "cron": cron, "timezone": timezone}
    return orjson.dumps({"stepwell": "tick", **name, "at": at, "due": due or at, "token": token})


def wake_name(event_id: str, partition: str, after: str) -> tuple[str, str, int]:
    """The content of a wake message's token."""
    return event_id, f"wake {partition} {after}", 0


def wake_message(event_id: str, partition: str, after: str, token: str) -> bytes:
    """Requests the next page of an event's waits. `token`: of `wake_name`, because some events must not wake runs."""
    name = {"event": event_id, "partition": partition, "after": after}
    return orjson.dumps({"stepwell": "wake", **name, "token": token})


def scan_name(run_id: str, pause: int, after: int) -> tuple[str, str, int]:
    """The content of a scan message's token."""
    return run_id, f"look {pause}", after


def scan_message(run_id: str, pause: int, after: int, token: str) -> bytes:
    """Continues the scan for earlier events that satisfy a wait, after a position. `token`: of `scan_name`, because a
    forged position would skip events."""
    name = {"run": run_id, "pause": pause, "after": after}
    return orjson.dumps({"stepwell": "look", **name, "token": token})


def release_message(function_id: str, after: str | None) -> bytes:
    """Releases the next page of the events that were kept for a paused function, after the sort key `after`."""
    return orjson.dumps({"stepwell": "release", "function": function_id, "after": after})


def limits_message(after: str | None) -> bytes:
    """Looks at the next page of the limits for which starts wait, because values of limits may have changed."""
    return orjson.dumps({"stepwell": "limits", "after": after})


def limit_message(limit_id: str, key: bytes, text: str, due: int) -> bytes:
    """Looks at one key of a throttle at `due` (ms), because starts wait for it."""
    return orjson.dumps({"stepwell": "limit", "limit": limit_id, "key": key.hex(), "text": text, "due": due})


def sweep_name(run_id: str, facts: Facts) -> tuple[str, str, int]:
    """The content of a sweep message's token."""
    return run_id, f"sweep {facts}", 0


def sweep_message(run_id: str, facts: Facts, token: str) -> bytes:
    """Facts about a run that are overdue. `token`: of `sweep_name`, because a step must not declare attempts lost."""
    return orjson.dumps({"stepwell": "sweep", "run": run_id, "facts": facts, "token": token})


def send_event_name(event_id: str, event: str) -> tuple[str, str, int]:
    """The content of the token that allows one of the engine's own events to be sent."""
    return event_id, f"tell {event}", 0


def send_event_message(event: str, token: str) -> bytes:
    """Sends one of the engine's own events (JSON). `token`: of `send_event_name`."""
    return orjson.dumps({"stepwell": "tell", "event": event, "token": token})


def ended_message(run_id: str) -> bytes:
    """Completes the end of a run, in case the process that ended it dies before it has sent everything."""
    return orjson.dumps({"stepwell": "ended", "run": run_id})


def cancel_message(function_id: str, before: int | None, token: str) -> bytes:
    """Cancels the open runs of a function, if `before` is given only those below that position.

    `token`: of (function, CANCEL, 0).
    """
    return orjson.dumps({"stepwell": CANCEL, "function": function_id, "before": before, "token": token})


def start_again_message(run_id: str, step: str, attempt: int, token: str, due: int) -> bytes:
    """Starts an attempt again at `due` (ms), because the first start failed."""
    name = {"run": run_id, "step": step, "attempt": attempt, "token": token}
    return orjson.dumps({"stepwell": "again", **name, "due": due})


def stop_message(run_id: str, due: int) -> bytes:
    """Stops the containers of a cancelled run that may still run, at `due` (ms)."""
    return orjson.dumps({"stepwell": "stop", "run": run_id, "due": due})


def outcome_message(run_id: str, step: str, attempt: int, token: str, outcome: Outcome) -> bytes:
    """The outcome of an attempt that failed before it was started."""
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
    """The seconds from `now` to `due` (both ms), rounded up. SQS takes whole seconds, and no message may be early."""
    return max(0, -((now - due) // 1000))


def entry(body: bytes, delay: int = 0) -> dict[str, Any]:
    """An entry for `outbox.send_messages`. `delay`: in seconds."""
    message: dict[str, Any] = {"MessageBody": body.decode()}
    return {**message, "DelaySeconds": delay} if delay else message

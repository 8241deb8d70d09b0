"""`POST /e`: from the bytes of a request to events, and to the bytes of the answer. The hot path: plain functions."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence

import orjson

from stepwell.api.access import Keys, KeyScope, bearer, require
from stepwell.api.problem import Problem
from stepwell.core.events import BadRequest, Event, EventError, parse_events

_random = random.Random(random.SystemRandom().getrandbits(256))


Judge = Callable[[Iterable[tuple[int, Event]]], list[EventError]]
"""What types of events have against some that they refuse. Events by their places in the request."""


def read_events(
    keys: Keys, path_key: str | None, authorization: str | None, body: bytes, now: int, judge: Judge
) -> list[Event]:
    """The events of a request, all or none. `path_key` is that of `/e/{key}`. Whoever accepts them asks their types; of
    a request that is refused anyway, `judge` tells what they say. Raises Problem 400, 401 or 413."""
    require(keys, path_key or bearer(authorization), KeyScope.SEND)
    try:
        return parse_events(body, now, new_event_id)
    except BadRequest as bad:
        raise refusal(bad.with_more(judge(bad.others))) from None


def refusal(bad: BadRequest) -> Problem:
    """What the sender is answered: every error with its index and JSON pointer."""
    errors = [{"index": e.index, "pointer": e.pointer, "message": e.message} for e in bad.errors]
    first = bad.errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    place = f"event {first.index}" + (f", {first.pointer}" if first.pointer else "")
    return Problem(bad.status, f"{place}: {first.message}{more}", errors=errors)


def accepted(events: Sequence[Event]) -> bytes:
    """The answer once the events are durable."""
    return orjson.dumps({"ids": [event.id for event in events], "status": 200})


def new_event_id() -> str:
    """32 hex digits, ordered by time."""
    # Unique, not secret: a generator that was seeded once costs a tenth of asking the system every time.
    return f"{time.time_ns() // 1_000_000:012x}{_random.getrandbits(80):020x}"

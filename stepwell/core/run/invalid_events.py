"""The event `stepwell/event.invalid`, which the engine sends for an event that does not match its schema.

It is sent at most once for each event, and never for the engine's events, so that no function can trigger itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from stepwell.core.events.engine_ids import EngineId
from stepwell.core.events.events import Event, Invalid, internal_event, run_id

INVALID_EVENT = "stepwell/event.invalid"
MOST_SHOWN = 20  # errors of one event that are stored and sent; the response to the sender has all of them


def invalid_event(event: Event, policy: str, errors: Sequence[Invalid], now: int) -> Event:
    """The event about an invalid event. `policy`: `reject` (it was not accepted) or `warn` (it was accepted)."""
    data = {
        "event_name": event.name,
        "event_id": event.id,
        "v": event.v,
        "policy": policy,
        "errors": [{"pointer": error.pointer, "message": error.message} for error in errors[:MOST_SHOWN]],
        "more_errors": max(0, len(errors) - MOST_SHOWN),
    }
    return internal_event(INVALID_EVENT, data, event.user, f"{EngineId.INVALID}{run_id('', event.id)}", now)

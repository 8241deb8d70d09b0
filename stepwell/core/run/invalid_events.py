"""`stepwell/event.invalid`: the engine's own event about an event that does not match its schema.

One rule: there is at most one for each event, and none for the engine's own, so that no function can wake itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from stepwell.core.events.engine_ids import EngineId
from stepwell.core.events.events import Event, Invalid, internal_event, run_id

INVALID_EVENT = "stepwell/event.invalid"
MOST_SHOWN = 20  # of what is wrong with an event, as it is kept and told; a sender is told all


def invalid_event(event: Event, policy: str, errors: Sequence[Invalid], now: int) -> Event:
    """`policy`: what became of it, `reject` (it was not accepted) or `warn` (it was)."""
    data = {
        "event_name": event.name,
        "event_id": event.id,
        "v": event.v,
        "policy": policy,
        "errors": [{"pointer": error.pointer, "message": error.message} for error in errors[:MOST_SHOWN]],
        "more_errors": max(0, len(errors) - MOST_SHOWN),
    }
    return internal_event(INVALID_EVENT, data, event.user, f"{EngineId.INVALID}{run_id('', event.id)}", now)

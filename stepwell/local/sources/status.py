"""What a source is doing, for people: state, lag, counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from stepwell.local.sources.lag import Lag


class State(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    FAILING = "failing"  # it cannot read, and tries again
    PAUSED = "paused"


@dataclass(slots=True)
class Status:
    """`error` and `next_try_at`: while failing. The counts are since the server started."""

    state: State = State.STARTING
    error: str = ""
    next_try_at: int | None = None
    lag: Lag = field(default_factory=Lag)
    records: int = 0
    events: int = 0
    last_record_at: int | None = None  # the broker's time of the newest record, ms
    last_read_at: int | None = None  # ms

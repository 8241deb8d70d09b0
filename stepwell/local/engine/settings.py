"""Settings of the local platform."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stepwell.local.engine.clock import LOOK_AGAIN_S
from stepwell.local.engine.slots import DEFAULT_HTTP_SLOTS

DEFAULT_URL = "http://127.0.0.1:8288"


@dataclass(frozen=True, slots=True)
class Settings:
    parallelism: int
    env: str = "dev"
    secret: Callable[[str], str | None] = lambda name: None
    retry_s: float = 1.0  # delay after a batch that could not be committed (disk full, ...)
    public_url: str = DEFAULT_URL  # the API's public address
    http_slots: int = DEFAULT_HTTP_SLOTS
    look_again_s: float = LOOK_AGAIN_S  # longest time between two readings of the clock while a timer is set
    batch_facts: int = 500  # events and facts after which a batch ends; the rest is left for the next batches
    batch_s: float = 0.02  # seconds of CPU time after which a batch ends

"""What a platform stores for the checks of a start: the fields of a function that can refuse to start a run.

A check *claims* for a run before the run is written. Claims are idempotent: a message that is delivered again finds the
claim of its own run. If a later check refuses the run, the earlier claims are released.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from stepwell.core.events.events import Event
from stepwell.core.plain_data import immutable
from stepwell.core.plan import Plan, RateLimit
from stepwell.core.routing.not_started import NotStarted


class Idempotency(Protocol):
    """The runs that hold values of a function's `idempotency`."""

    def claim(self, function_id: str, value: bytes, run_id: str, position: int) -> str:
        """Claims a value for a run, whose event has this position. Returns the run that holds the value: this one,
        unless another run's event was accepted in the 24 hours before. Raises NotWritten."""

    def release(self, function_id: str, value: bytes, run_id: str) -> None:
        """Releases the claim of a run that is not started. Raises NotWritten."""


class RateLimits(Protocol):
    """The latest starts of runs, by the key of the function's `rate_limit`."""

    def claim(
        self, function_id: str, key: bytes, limit: RateLimit, run_id: str, now: int, *, again: bool
    ) -> int | None:
        """Counts the start of a run. Returns None if it was counted; otherwise when the next start is possible (ms
        since the epoch). `again`: the run may have been counted before, and was not written then; it counts from now on
        instead. Raises NotWritten."""

    def release(self, function_id: str, key: bytes, run_id: str) -> None:
        """No longer counts a run that is not started. Raises NotWritten."""


@immutable
class Holder:
    """The run that a key of `singleton` belongs to.

    `position`: of its event; a later one is of a later event. `at`: when it claimed the key (ms since the epoch), in a
    store where the run is written after the claim. `replaces`: runs that it must cancel.
    """

    run_id: str
    position: int
    at: int = 0
    replaces: tuple[str, ...] = ()


class Singletons(Protocol):
    """The holders of the keys of a function's `singleton`. A holder stays until another run takes the key over."""

    @property
    def write_ms(self) -> int:
        """How long after the claim of a run it may still be written; 0 if both are written at once."""

    def read(self, function_id: str, key: bytes) -> Holder | None:
        """The run that holds a key, strongly consistent. Raises NotWritten."""

    def take(self, function_id: str, key: bytes, seen: Holder | None, new: Holder, plan: Plan) -> bool:
        """Makes `new` the holder. Returns False if the holder is no longer `seen`. Raises NotWritten."""


class StartChecks(Protocol):
    """Everything that is stored for these checks."""

    @property
    def idempotency(self) -> Idempotency: ...

    @property
    def rate_limits(self) -> RateLimits: ...

    @property
    def singletons(self) -> Singletons: ...

    def refuse(self, event: Event, not_started: Sequence[NotStarted]) -> None:
        """Stores with an accepted event that it did not start these functions, and why, in addition to those already
        stored. Raises NotWritten."""

    def refused(self, event: Event) -> Collection[str]:
        """The ids of the functions that an accepted event is known not to start. Raises NotWritten."""

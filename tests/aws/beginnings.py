"""The state with which each variant of a crash test begins. It is created once and copied for each variant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from stepwell.testing.account.snapshot import Snapshot
from stepwell.testing.batches import Batches, Json

T = TypeVar("T")


class Beginning(Generic[T]):
    """Copies the account after `do` for each variant, which continues in new processes.

    The clock must have the same time.
    """

    def __init__(self, do: Callable[[Batches], T]) -> None:
        self._do = do
        self._done: tuple[Snapshot, list[Json], T] | None = None

    def tell(self, batches: Batches) -> T:
        """The result of `do`. Requests are counted from here on."""
        if self._done is None:
            answer = self._do(batches)
            self._done = Snapshot(), list(batches.invoked), answer
        else:
            snapshot, invoked, answer = self._done
            snapshot.restore()
            batches.invoked[:] = invoked
        batches.start()
        batches.requests.clear()
        return answer

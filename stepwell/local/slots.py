"""Slots: how many attempts may run at a time, and the queue of those that wait for one, fair between functions."""

from __future__ import annotations

from collections import OrderedDict, deque

DEFAULT_HTTP_SLOTS = 256  # calls of web addresses at a time

AttemptId = tuple[str, int, int]  # run id, step, attempt


class Slots:
    def __init__(self, size: int) -> None:
        self._size = size
        self._taken = 0  # by attempts that are running or about to be
        self._queues: OrderedDict[str, deque[AttemptId]] = OrderedDict()  # by function, the next one first
        self._queued: set[AttemptId] = set()

    def admit(self) -> bool:
        """Take a slot; False if the attempt must queue."""
        if self._queued or self._taken >= self._size:
            return False  # those who queue come first
        self._taken += 1
        return True

    def release(self) -> None:
        self._taken -= 1

    def queue(self, function_id: str, attempt_id: AttemptId) -> None:
        """Queueing an attempt twice is harmless."""
        if attempt_id not in self._queued:
            self._queued.add(attempt_id)
            self._queues.setdefault(function_id, deque()).append(attempt_id)

    def take_queued(self) -> list[AttemptId]:
        """As many queued attempts as there are free slots, one function after the other; each takes a slot."""
        taken = []
        while self._queues and self._taken < self._size:
            function_id, queue = self._queues.popitem(last=False)
            attempt_id = queue.popleft()
            self._queued.discard(attempt_id)
            self._taken += 1
            taken.append(attempt_id)
            if queue:
                self._queues[function_id] = queue  # to the end of the line
        return taken

    @property
    def has_queued(self) -> bool:
        return bool(self._queued)

    def close(self) -> None:
        """Admit nobody any more: what comes stays queued."""
        self._size = 0

    def reset(self, taken: int) -> None:
        """Forget the queue; so many slots are taken."""
        self._queues.clear()
        self._queued.clear()
        self._taken = taken

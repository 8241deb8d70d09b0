"""Who runs when: slots, a queue that is fair between functions, and the attempts that are being executed.

Implements `platform.Dispatcher`. What the engine starts is launched only after the batch's commit (`launch`).
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

from stepwell.core.events import Event
from stepwell.core.messages import Error, Outcome
from stepwell.local.runners.job import CannotRun, Job, Runner, Running
from stepwell.platform import Attempt

log = logging.getLogger("stepwell.executor")

AttemptId = tuple[str, int, int]  # run id, step, attempt


class Listener(Protocol):
    """Who is told what attempts say, on the event loop's thread."""

    def attempt_ended(self, attempt: AttemptId, outcome: Outcome) -> None: ...

    def attempt_logged(self, attempt: AttemptId, stream: str, text: bytes) -> None: ...


class Executor:
    def __init__(
        self, runner: Runner, make_job: Callable[[Attempt], Job], listener: Listener, parallelism: int
    ) -> None:
        self._runner, self._make_job, self._listener = runner, make_job, listener
        self._parallelism = parallelism
        self._taken = 0  # slots of attempts that are running or about to be
        self._queues: OrderedDict[str, deque[AttemptId]] = OrderedDict()  # by function, the next one first
        self._queued: set[AttemptId] = set()
        self._ready: list[Attempt] = []  # claimed in the batch that is not yet committed
        self._stops: list[AttemptId] = []
        self._running: dict[AttemptId, Running | None] = {}  # None: about to be started

    # --- what the engine asks for ----------------------------------------------------------------------------------

    def admit(self) -> bool:
        if self._queued or self._taken >= self._parallelism:
            return False  # those who queue come first
        self._taken += 1
        return True

    def release(self) -> None:
        self._taken -= 1

    def queue(self, function_id: str, run_id: str, step: int, attempt: int) -> None:
        attempt_id = (run_id, step, attempt)
        if attempt_id not in self._queued:
            self._queued.add(attempt_id)
            self._queues.setdefault(function_id, deque()).append(attempt_id)

    def start(self, attempt: Attempt) -> None:
        self._ready.append(attempt)

    def stop(self, run_id: str, step: int, attempt: int) -> None:
        self._stops.append((run_id, step, attempt))

    def emit(self, event: Event) -> bool:
        """On one machine, nobody else listens, and all of the engine's events are stored."""
        return True

    # --- what the platform does with it ----------------------------------------------------------------------------

    def take_queued(self) -> list[AttemptId]:
        """As many queued attempts as there are free slots, one function after the other; each takes a slot."""
        taken = []
        while self._queues and self._taken < self._parallelism:
            function_id, queue = self._queues.popitem(last=False)
            attempt_id = queue.popleft()
            self._queued.discard(attempt_id)
            self._taken += 1
            taken.append(attempt_id)
            if queue:
                self._queues[function_id] = queue  # to the end of the line
        return taken

    def launch(self) -> None:
        """The batch is durable: stop what it stops, start what it claimed."""
        stops, self._stops = self._stops, []
        for attempt_id in stops:
            running = self._running.get(attempt_id)
            if running is not None:
                running.stop()
        ready, self._ready = self._ready, []
        for attempt in ready:
            self._launch(attempt)

    def _launch(self, attempt: Attempt) -> None:
        attempt_id = (attempt.record.run.id, attempt.step, attempt.attempt)
        self._running[attempt_id] = None
        end = partial(self._ended, attempt_id)
        try:
            job = self._make_job(attempt)
        except CannotRun as reason:
            end(Outcome(error=Error("start", str(reason)), retryable=False))
            return
        self._running[attempt_id] = self._runner.start(job, partial(self._listener.attempt_logged, attempt_id), end)

    def _ended(self, attempt_id: AttemptId, outcome: Outcome) -> None:
        if attempt_id in self._running:
            del self._running[attempt_id]
            self._taken -= 1
            self._listener.attempt_ended(attempt_id, outcome)

    def pause(self) -> None:
        """Start nothing more: what comes stays queued."""
        self._parallelism = 0

    def discard_batch(self) -> None:
        """The batch was rolled back: nothing of it is started, and the queue must be filled again from the store."""
        self._ready.clear()
        self._stops.clear()
        self._queues.clear()
        self._queued.clear()
        self._taken = len(self._running)

    @property
    def running(self) -> set[AttemptId]:
        return set(self._running)

    @property
    def is_idle(self) -> bool:
        return not (self._running or self._queued or self._ready)

    async def close(self) -> None:
        """Kill what still runs."""
        await self._runner.close()

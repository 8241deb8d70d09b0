"""Runs claimed attempts: slots for programs and for calls, and the attempts that are being executed.

Implements `platform.Dispatcher`. Attempts are launched only after the batch's commit (`launch`). Steps that call a URL
only wait, so they have slots of their own, and never take those of programs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from stepwell.core.run.messages import Error, Outcome
from stepwell.local.engine.slots import DEFAULT_HTTP_SLOTS, Slots
from stepwell.local.runners.job import CannotRun, Job, Runner, Running
from stepwell.local.runners.program import STOPPED
from stepwell.platform import Attempt, AttemptId, Effects, FreeSlots, IncomingEvent

log = logging.getLogger("stepwell.executor")

_SLICE_S = 0.003

_Claimed = tuple[AttemptId, Slots, Attempt]  # an attempt, and the slots in which it has one


class Listener(Protocol):
    """Receives the logs and outcomes of attempts, on the event loop's thread."""

    def attempt_ended(self, attempt: AttemptId, outcome: Outcome) -> None: ...

    def attempt_logged(self, attempt: AttemptId, stream: str, text: bytes) -> None: ...

    def when_logged(self, attempt: AttemptId, then: Callable[[], None]) -> None:
        """Calls `then` once the attempt's log is written, or will be written together with the outcome."""


class Executor:
    def __init__(
        self,
        runner: Runner,
        make_job: Callable[[Attempt], Job],
        listener: Listener,
        parallelism: int,
        http_slots: int = DEFAULT_HTTP_SLOTS,
        slice_s: float = _SLICE_S,
    ) -> None:
        """`slice_s` limits how long attempts are started before the event loop may continue, in seconds."""
        self._runner, self._make_job, self._listener = runner, make_job, listener
        self._slice_s = slice_s
        self._programs, self._calls = self._all_slots = (Slots(parallelism), Slots(http_slots))
        self._held: dict[AttemptId, Slots] = {}  # slots of attempts that were queued and are about to be claimed
        self._ready: list[_Claimed] = []  # claimed in the batch that is not committed yet
        self._stops: list[AttemptId] = []
        self._launching: deque[_Claimed] = deque()  # claims committed, about to be started
        self._unwanted: set[AttemptId] = set()  # stopped while in `_launching`
        self._running: dict[AttemptId, tuple[Slots, Running | None]] = {}  # None: about to be started

    # --- called by the engine --------------------------------------------------------------------------------------

    def slots(self) -> FreeSlots:
        return FreeSlots(self._programs.free, self._calls.free)

    def carry_out(self, effects: Effects) -> Sequence[IncomingEvent]:
        """Takes the effects of a batch; `launch` starts and stops the attempts. Returns all events, to be stored."""
        for attempt_id in effects.released:
            if (held := self._held.pop(attempt_id, None)) is not None:
                held.release()
        for attempt in effects.starts:
            attempt_id = attempt.record.run.id, attempt.step, attempt.attempt
            slots = self._held.pop(attempt_id, None)
            if slots is None:
                slots = self._calls if attempt.record.plan.steps[attempt.step].calls else self._programs
                slots.take()
            self._ready.append((attempt_id, slots, attempt))
        self._stops += effects.stops
        for queued in effects.queued:
            record, slots = queued.record, self._calls if queued.is_call else self._programs
            slots.queue(record.plan.function_id, record.order, (record.run.id, queued.step, queued.attempt))
        return effects.events

    # --- called by the platform ------------------------------------------------------------------------------------

    def take_queued(self, most: int) -> list[AttemptId]:
        """Reserves free slots for queued attempts, about `most` at most, and returns these. Functions take turns."""
        taken: list[AttemptId] = []
        for slots in self._all_slots:
            some = slots.take_queued(most)
            self._held.update(dict.fromkeys(some, slots))
            taken += some
        return taken

    @property
    def can_take(self) -> bool:
        """Whether a queued attempt could get a slot now."""
        return self._programs.can_take or self._calls.can_take

    def launch(self) -> None:
        """Stops and starts attempts as the committed batch requires. Requests are answered in between."""
        if self._stops or self._ready:
            ready, self._ready = self._ready, []
            for attempt_id, slots, _ in ready:
                self._running[attempt_id] = slots, None
            self._stop()
            is_under_way = bool(self._launching)
            self._launching += ready
            if not is_under_way:
                self._launch_some()

    def _stop(self) -> None:
        """Stops running attempts, and marks those that are about to start as unwanted."""
        stops, self._stops = self._stops, []
        for attempt_id in stops:
            if attempt_id not in self._running:
                continue
            _, running = self._running[attempt_id]
            if running is None:
                self._unwanted.add(attempt_id)
            else:
                running.stop()

    def _launch_some(self) -> None:
        ends = time.perf_counter() + self._slice_s
        try:
            while self._launching:
                self._launch(*self._launching.popleft())
                if time.perf_counter() >= ends:
                    return
        finally:
            if self._launching:
                asyncio.get_running_loop().call_soon(self._launch_some)

    def _launch(self, attempt_id: AttemptId, slots: Slots, attempt: Attempt) -> None:
        end = partial(self._ended, attempt_id)
        if attempt_id in self._unwanted:
            self._unwanted.remove(attempt_id)
            end(STOPPED)
            return
        try:
            job = self._make_job(attempt)
        except CannotRun as reason:
            end(Outcome(error=Error("start", str(reason)), retryable=False))
            return
        running = self._runner.start(job, partial(self._listener.attempt_logged, attempt_id), end)
        self._running[attempt_id] = slots, running

    def _ended(self, attempt_id: AttemptId, outcome: Outcome) -> None:
        self._listener.when_logged(attempt_id, partial(self._forget, attempt_id, outcome))

    def _forget(self, attempt_id: AttemptId, outcome: Outcome) -> None:
        taken = self._running.pop(attempt_id, None)
        if taken is not None:
            slots, _ = taken
            slots.release()
            self._listener.attempt_ended(attempt_id, outcome)

    def pause(self) -> None:
        """Stops starting attempts: new ones stay queued."""
        for slots in self._all_slots:
            slots.close()

    def discard_batch(self) -> None:
        """Forgets the effects of a batch that was rolled back. The queue must be filled from the store again."""
        self._held.clear()
        self._ready.clear()
        self._stops.clear()
        for slots in self._all_slots:
            slots.reset(taken=sum(item is slots for item, _ in self._running.values()))

    @property
    def running(self) -> set[AttemptId]:
        return set(self._running)

    @property
    def has_queued(self) -> bool:
        """Whether attempts are waiting for a slot."""
        return self._programs.has_queued or self._calls.has_queued

    @property
    def is_idle(self) -> bool:
        return not (self._running or self._ready or self.has_queued)

    async def close(self) -> None:
        """Kills all running attempts."""
        self._launching.clear()
        await self._runner.close()

"""Runs claimed attempts: slots for programs and for calls, and the attempts that are being executed.

Implements `platform.Dispatcher`. Attempts are launched only after the batch's commit (`launch`). Steps that call a URL
only wait, so they have slots of their own, and never take those of programs. Attempts that another system executes need
no slot; those that workers fetch wait in `WorkerQueues`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Protocol

from stepwell.core.plain_data import immutable
from stepwell.core.plan import Step
from stepwell.core.run.messages import Error, Outcome
from stepwell.local.engine.limits import Limits
from stepwell.local.engine.slots import DEFAULT_HTTP_SLOTS, Place, Slots
from stepwell.local.engine.worker_queues import WorkerQueues
from stepwell.local.runners.job import CannotRun, End, Job, Log, RemoteRunner, Running
from stepwell.local.runners.program import STOPPED
from stepwell.platform import Attempt, AttemptId, Effects, FreeSlots, IncomingEvent, QueuedAttempt

log = logging.getLogger("stepwell.executor")

_SLICE_S = 0.003

_NO_LIMIT = 1_000_000_000


@immutable
class _Claimed:
    """A claimed attempt, and the slots in which it has one. `resumes`: another system has the attempt already."""

    id: AttemptId
    slots: Slots
    attempt: Attempt
    resumes: bool = False

    @property
    def step(self) -> Step:
        return self.attempt.record.plan.steps[self.attempt.step]


class Listener(Protocol):
    """Receives the logs and outcomes of attempts, on the event loop's thread."""

    def attempt_ended(self, attempt: AttemptId, outcome: Outcome) -> None: ...

    def attempt_accepted(self, attempt: AttemptId) -> None: ...

    def attempt_logged(self, attempt: AttemptId, stream: str, text: bytes) -> None: ...

    def when_logged(self, attempt: AttemptId, then: Callable[[], None]) -> None:
        """Calls `then` once the attempt's log is written, or will be written together with the outcome."""


class Executor:
    def __init__(
        self,
        runner: RemoteRunner,
        make_job: Callable[[Attempt], Job],
        listener: Listener,
        limits: Limits,
        parallelism: int,
        http_slots: int = DEFAULT_HTTP_SLOTS,
        slice_s: float = _SLICE_S,
    ) -> None:
        """`slice_s` limits how long attempts are started before the event loop may continue, in seconds."""
        self._runner, self._make_job, self._listener = runner, make_job, listener
        self._slice_s = slice_s
        self._programs, self._calls, self._remote = Slots(parallelism), Slots(http_slots), Slots(_NO_LIMIT)
        self._all_slots = (self._programs, self._calls, self._remote)
        self.limits = limits
        self.worker_queues = WorkerQueues()
        self._held: dict[AttemptId, Slots] = {}  # slots of attempts that were queued and are about to be claimed
        self._ready: list[_Claimed] = []  # claimed in the batch that is not committed yet
        self._stops: list[AttemptId] = []
        self._launching: deque[_Claimed] = deque()  # claims committed, about to be started
        self._unwanted: set[AttemptId] = set()  # stopped while in `_launching`
        self._running: dict[AttemptId, tuple[Slots, Running | None]] = {}  # None: about to be started
        self._queue_names: dict[AttemptId, str] = {}  # of running attempts that workers fetch

    # --- called by the engine --------------------------------------------------------------------------------------

    def slots(self) -> FreeSlots:
        return FreeSlots(self._programs.free, self._calls.free)

    def carry_out(self, effects: Effects) -> Sequence[IncomingEvent]:
        """Takes the effects of a batch; `launch` starts and stops the attempts. Returns all events, to be stored."""
        for attempt_id in effects.released:
            if (held := self._held.pop(attempt_id, None)) is not None:
                held.release()
                self.worker_queues.release(attempt_id)
                self.limits.release(attempt_id)
        for attempt in effects.starts:
            attempt_id = attempt.record.run.id, attempt.step, attempt.attempt
            slots = self._held.pop(attempt_id, None)
            if slots is None:
                slots = self._slots_of(attempt.record.plan.steps[attempt.step])
                slots.take()
            self._ready.append(_Claimed(attempt_id, slots, attempt))
        self._stops += effects.stops
        for queued in effects.queued:
            if queued.record.plan.steps[queued.step].is_limited:
                self.limits.queue(queued, partial(self._queue, queued))
            else:
                self._queue(queued, self.limits.rank_in_line(queued.record))
        for run in effects.held:
            self.limits.hold_start(run.record)
        for ended in effects.ended:
            self.limits.ended(ended[:3])
        return [*effects.events, *effects.emitted] if effects.emitted else effects.events

    def _queue(self, queued: QueuedAttempt, rank: int, key: Hashable = None) -> None:
        """Queues an attempt that its limits allow, or that has none."""
        record, step = queued.record, queued.record.plan.steps[queued.step]
        attempt_id = record.run.id, queued.step, queued.attempt
        place = Place(record.plan.function_id, record.order, rank, key)
        if step.is_fetched:
            self.worker_queues.queue(step.runtime.queue, place, attempt_id)
        else:
            self._slots_of(step).queue(place, attempt_id)

    def _slots_of(self, step: Step) -> Slots:
        if step.needs_slot:
            return self._calls if step.calls else self._programs
        return self._remote

    # --- called by the platform ------------------------------------------------------------------------------------

    def take_queued(self, most: int) -> list[AttemptId]:
        """Reserves free slots for queued attempts, about `most` at most, and returns these. Functions take turns."""
        taken: list[AttemptId] = []
        for slots in self._all_slots:
            some = slots.take_queued(most)
            self._held.update(dict.fromkeys(some, slots))
            taken += some
        fetched = self.worker_queues.take_queued(most)
        for attempt_id in fetched:
            self._remote.take()
            self._held[attempt_id] = self._remote
        return taken + fetched

    @property
    def can_take(self) -> bool:
        """Whether a queued attempt could get a slot now."""
        if self._programs.can_take or self._calls.can_take or self._remote.can_take:
            return True
        return self.worker_queues.can_take or self.limits.can_start

    def launch(self) -> None:
        """Stops and starts attempts as the committed batch requires. Requests are answered in between."""
        if self._stops or self._ready:
            ready, self._ready = self._ready, []
            for claimed in ready:
                self._running[claimed.id] = claimed.slots, None
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
                self._launch(self._launching.popleft())
                if time.perf_counter() >= ends:
                    return
        finally:
            if self._launching:
                asyncio.get_running_loop().call_soon(self._launch_some)

    def resume(self, attempt: Attempt) -> None:
        """Waits for the end of an attempt that another system accepted before this server started."""
        attempt_id = attempt.record.run.id, attempt.step, attempt.attempt
        if attempt.record.plan.steps[attempt.step].is_limited:
            self.limits.count_running(attempt)
        self._remote.take()
        self._running[attempt_id] = self._remote, None
        self._launching.append(_Claimed(attempt_id, self._remote, attempt, resumes=True))
        if len(self._launching) == 1:
            asyncio.get_running_loop().call_soon(self._launch_some)

    def _launch(self, claimed: _Claimed) -> None:
        end = partial(self._ended, claimed.id)
        if claimed.id in self._unwanted:
            self._unwanted.remove(claimed.id)
            self.worker_queues.release(claimed.id)
            end(STOPPED)
            return
        try:
            job = self._make_job(claimed.attempt)
        except CannotRun as reason:
            self.worker_queues.release(claimed.id)
            end(Outcome(error=Error("start", str(reason)), retryable=False))
            return
        log = partial(self._listener.attempt_logged, claimed.id)
        if claimed.step.is_remote:
            self._launch_remote(claimed, job, log, end)
        else:
            self._running[claimed.id] = claimed.slots, self._runner.start(job, log, end)

    def _launch_remote(self, claimed: _Claimed, job: Job, log: Log, end: End) -> None:
        if claimed.resumes:
            running = self._runner.resume(job, log, end)
        else:
            running = self._runner.start_remote(job, log, end, partial(self._listener.attempt_accepted, claimed.id))
        self._running[claimed.id] = claimed.slots, running
        if claimed.step.is_fetched:
            self._queue_names[claimed.id] = claimed.step.runtime.queue
            if not claimed.resumes:
                self.worker_queues.hand_over(claimed.id)

    def _ended(self, attempt_id: AttemptId, outcome: Outcome) -> None:
        self._listener.when_logged(attempt_id, partial(self._forget, attempt_id, outcome))

    def _forget(self, attempt_id: AttemptId, outcome: Outcome) -> None:
        taken = self._running.pop(attempt_id, None)
        if taken is not None:
            slots, _ = taken
            slots.release()
            self.limits.release(attempt_id)
            if (name := self._queue_names.pop(attempt_id, None)) is not None:
                self.worker_queues.ended(name, attempt_id)
            self._listener.attempt_ended(attempt_id, outcome)

    def pause(self) -> None:
        """Stops starting attempts: new ones stay queued."""
        for slots in self._all_slots:
            slots.close()
        self.worker_queues.close()

    def discard_batch(self) -> None:
        """Forgets the effects of a batch that was rolled back. The queue must be filled from the store again."""
        self._held.clear()
        self._ready.clear()
        self._stops.clear()
        for slots in self._all_slots:
            slots.reset(taken=sum(item is slots for item, _ in self._running.values()))
        self.worker_queues.reset()
        self.limits.reset(self._running)

    @property
    def running(self) -> set[AttemptId]:
        return set(self._running)

    @property
    def running_here(self) -> set[AttemptId]:
        """The running attempts that end with this server; those of other systems go on."""
        return {attempt_id for attempt_id, (slots, _) in self._running.items() if slots is not self._remote}

    @property
    def has_queued(self) -> bool:
        """Whether attempts are waiting for a slot of this server."""
        return self._programs.has_queued or self._calls.has_queued or self._remote.has_queued

    @property
    def is_launching(self) -> bool:
        return bool(self._launching)

    @property
    def is_idle(self) -> bool:
        return not (self._running or self._ready or self.has_queued)

    async def close(self) -> None:
        """Kills all attempts that run here."""
        self._launching.clear()
        await self._runner.close()

"""Who runs when: slots of programs and of calls, and the attempts that are being executed.

Implements `platform.Dispatcher`. What the engine starts is launched only after the batch's commit (`launch`). A call to
a web address waits and computes nothing: calls and programs take no slots of each other.
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

_Claimed = tuple[AttemptId, Slots, Attempt]  # an attempt, and where it has a slot


class Listener(Protocol):
    """Who is told what attempts say, on the event loop's thread."""

    def attempt_ended(self, attempt: AttemptId, outcome: Outcome) -> None: ...

    def attempt_logged(self, attempt: AttemptId, stream: str, text: bytes) -> None: ...

    def when_logged(self, attempt: AttemptId, then: Callable[[], None]) -> None:
        """Call this once what the attempt has logged is written, or is about to be with its end."""


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
        """`slice_s`: seconds of starting attempts after which the event loop has its turn."""
        self._runner, self._make_job, self._listener = runner, make_job, listener
        self._slice_s = slice_s
        self._programs, self._calls = self._all_slots = (Slots(parallelism), Slots(http_slots))
        self._held: dict[AttemptId, Slots] = {}  # of attempts that were queued, and are about to be claimed
        self._ready: list[_Claimed] = []  # in the batch that is not yet committed
        self._stops: list[AttemptId] = []
        self._launching: deque[_Claimed] = deque()  # committed, and about to be started
        self._unwanted: set[AttemptId] = set()  # of these
        self._running: dict[AttemptId, tuple[Slots, Running | None]] = {}  # None: about to be started

    # --- what the engine asks for ----------------------------------------------------------------------------------

    def slots(self) -> FreeSlots:
        return FreeSlots(self._programs.free, self._calls.free)

    def carry_out(self, effects: Effects) -> Sequence[IncomingEvent]:
        """Once the batch is durable (`launch`). Nobody else listens to events: all are stored here."""
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

    # --- what the platform does with it ----------------------------------------------------------------------------

    def take_queued(self, most: int) -> list[AttemptId]:
        """As many queued attempts as there are free slots, at most about so many, one function after the other; each
        takes a slot."""
        taken: list[AttemptId] = []
        for slots in self._all_slots:
            some = slots.take_queued(most)
            self._held.update(dict.fromkeys(some, slots))
            taken += some
        return taken

    @property
    def can_take(self) -> bool:
        """Whether an attempt is queued that has a slot."""
        return self._programs.can_take or self._calls.can_take

    def launch(self) -> None:
        """The batch is durable: stop what it stops, start what it claimed. Requests are answered in between."""
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
        """Stop what the batch stops, or what it claimed is not to be started."""
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
        """Start nothing more: what comes stays queued."""
        for slots in self._all_slots:
            slots.close()

    def discard_batch(self) -> None:
        """The batch was rolled back: nothing of it is started, and the queue must be filled again from the store."""
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
        """Whether attempts wait for a slot."""
        return self._programs.has_queued or self._calls.has_queued

    @property
    def is_idle(self) -> bool:
        return not (self._running or self._ready or self.has_queued)

    async def close(self) -> None:
        """Kill what still runs."""
        self._launching.clear()
        await self._runner.close()

"""Warm worker processes: kept after an attempt, for the next attempt with the same key.

A worker serves one key only, so that no step sees another's state. Subclasses decide what the key is and which process
is started.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Any

from stepwell.core.run.outcome import failure
from stepwell.local.runners.idle import IdleWorkers, Place
from stepwell.local.runners.job import CannotRun, End, Job, Log, Running
from stepwell.local.runners.program import NotStarted, start_failure
from stepwell.local.runners.scratch import Folder, Scratch
from stepwell.local.runners.worker import Worker
from stepwell.local.system.cpus import usable_cpus
from stepwell.local.system.memory import private_bytes, usable_memory

_LONGEST_IDLE_S = 300.0
_SWEEP_S = 30.0
_MOST_IDLE = 128
_SHARE_OF_MEMORY = 0.25
_MEASURE_S = 60.0  # between two measurements of a worker, each of which takes the kernel 0.3 ms
_FILES = 32  # open files of the server's limit that count for each idle worker; it uses four

Key = tuple[Any, ...]


class WarmWorkers:
    def __init__(
        self,
        scratch: Scratch,
        most_idle: int | None = None,
        most_idle_bytes: int | None = None,
        always_idle: int | None = None,
    ) -> None:
        """The limits for idle workers: their number, and, beyond `always_idle`, the private memory of all of them
        together."""
        self._scratch, self._user = scratch, scratch.user
        always = always_idle or 4 * usable_cpus() + 4
        most_bytes = most_idle_bytes or int(_SHARE_OF_MEMORY * usable_memory())
        self._most_idle = most_idle
        self._idle = IdleWorkers[Worker](always, most_bytes, always)
        self._workers: dict[Worker, tuple[Place, Folder]] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop  # set with the first worker; to get it takes a system call
        self._gone = asyncio.Event()

    # --- of subclasses -----------------------------------------------------------------------------------------------

    def _new_worker(self, job: Job, folder: Folder) -> Worker:
        """Starts a worker for the job, whose TMPDIR is `folder.tmp`. Raises CannotRun, OSError."""
        raise NotImplementedError

    def _rested(self) -> None:
        """Called when an attempt has ended and its worker is idle."""

    def _sweep_others(self, moment: float) -> bool:
        """Stops what was not used since then. Returns whether there is something left to stop later."""
        return False

    # --- attempts ----------------------------------------------------------------------------------------------------

    def _run(self, key: Key, job: Job, log: Log, end: End) -> Running:
        """Runs the job in an idle worker of this key, or in a new one."""
        while worker := self._idle.find(key):
            self._idle.remove(worker)
            if invocation := worker.invoke(job.input, job.step.timeout_ms, log, end):
                return invocation
        try:
            worker = self._launch(job, key)
        except (CannotRun, OSError) as error:
            return NotStarted(start_failure(error), end)
        return worker.invoke(job.input, job.step.timeout_ms, log, end) or NotStarted(
            failure("crash", "the step's process ended at once"), end
        )

    def _launch(self, job: Job, key: Key) -> Worker:
        folder = self._scratch.new()
        try:
            worker = self._new_worker(job, folder)
        except (CannotRun, OSError):
            self._scratch.remove(folder)
            raise
        self._loop = asyncio.get_running_loop()
        self._workers[worker] = self._idle.open_place(key), folder
        self._idle.most = self._most_idle or max(self._idle.always, _most_idle())
        self._gone.clear()
        return worker

    # --- idle workers ------------------------------------------------------------------------------------------------

    def _ended(self, worker: Worker) -> None:
        if not worker.is_idle:
            return
        self._rested()
        now, (place, _) = self._loop.time(), self._workers[worker]
        self._idle.add(worker, place, now)
        if self._idle.are_too_many:
            self._retire_surplus(worker)
        if now - place.measured_at > _MEASURE_S:
            place.measured_at = now
            self._loop.call_soon(self._measure, worker)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(_SWEEP_S, self.sweep)

    def sweep(self, longest_idle_s: float = _LONGEST_IDLE_S) -> None:
        """Stops workers that have been idle for this long."""
        loop = asyncio.get_running_loop()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for worker in self._idle.waiting_since(loop.time() - longest_idle_s):
            self._retire(worker)
        others = self._sweep_others(loop.time() - longest_idle_s)
        self._sweeper = loop.call_later(_SWEEP_S, self.sweep) if self._idle or others else None

    def _measure(self, worker: Worker) -> None:
        if worker in self._workers:
            self._workers[worker][0].size = private_bytes(worker.pid)
            self._retire_surplus(worker)

    def _retire_surplus(self, newest: Worker) -> None:
        for surplus in self._idle.surplus(newest, asyncio.get_running_loop().time()):
            self._retire(surplus)

    def _retire(self, worker: Worker) -> None:
        self._idle.remove(worker)
        self._idle.close_place(self._workers[worker][0])
        worker.kill()

    def _died(self, worker: Worker) -> None:
        if worker in self._idle:
            self._idle.remove(worker)
        place, folder = self._workers.pop(worker)
        self._idle.close_place(place)
        self._scratch.remove(folder)
        if not self._workers:
            self._gone.set()

    async def close(self) -> None:
        """Kills all workers, and waits until they are gone."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for worker in list(self._workers):
            worker.kill()
        if self._workers:
            await self._gone.wait()


def _most_idle() -> int:
    """How many workers may be idle, given the limit of open files of this process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_IDLE if soft < 0 else min(_MOST_IDLE, soft // _FILES)

"""Attempts that Faktory workers execute: each waits here, from its claim until a worker reports the end."""

from __future__ import annotations

from collections.abc import Callable

from stepwell.core.plain_data import immutable
from stepwell.core.run.messages import Outcome
from stepwell.core.run.outcome import failure
from stepwell.local.runners.arguments import NoArguments, arguments
from stepwell.local.runners.job import CannotRun, End, Job, Log, Running
from stepwell.local.runners.program import STOPPED, NotStarted
from stepwell.platform import AttemptId


@immutable
class FetchedAttempt:
    """An attempt that is claimed for a worker. `args`: the arguments of the job, as a JSON text; empty if the server
    was restarted since the claim."""

    job: Job
    log: Log
    end: End
    args: bytes = b""

    @property
    def queue(self) -> str:
        return self.job.step.runtime.queue


class FaktoryRunner:
    """Implements `RemoteRunner`. `is_served`: workers can connect to this server."""

    def __init__(self) -> None:
        self.is_served = False
        self._attempts: dict[AttemptId, FetchedAttempt] = {}

    def check(self) -> None:
        """Raises CannotRun if no worker can fetch attempts from this server."""
        if not self.is_served:
            raise CannotRun(
                "Faktory workers run this step, and they need a port; start the server with --faktory :7419"
            )

    def start(self, job: Job, log: Log, end: End) -> Running:
        try:
            args, _ = arguments(job.step.runtime, job.input)
        except NoArguments as error:
            return NotStarted(failure("arguments_failed", str(error), retryable=False), end)
        return self._hold(FetchedAttempt(job, log, end, args))

    def start_remote(self, job: Job, log: Log, end: End, accepted: Callable[[], None]) -> Running:
        return self.start(job, log, end)

    def resume(self, job: Job, log: Log, end: End) -> Running:
        return self._hold(FetchedAttempt(job, log, end))

    def _hold(self, fetched: FetchedAttempt) -> Running:
        job = fetched.job
        attempt = job.run_id, job.index, job.attempt
        self._attempts[attempt] = fetched
        return _Stoppable(self, attempt)

    def find(self, attempt: AttemptId) -> FetchedAttempt | None:
        """An attempt that has not ended; None if it has, or is not known."""
        return self._attempts.get(attempt)

    def end(self, attempt: AttemptId, outcome: Outcome) -> None:
        """Ends an attempt, if it has not ended yet."""
        if (fetched := self._attempts.pop(attempt, None)) is not None:
            fetched.end(outcome)

    async def close(self) -> None:
        """Does nothing: attempts go on, and the next server learns how they end."""


class _Stoppable:
    """Stops waiting for the end. The worker is not interrupted: the protocol has no message for it."""

    __slots__ = ("_attempt", "_runner")

    def __init__(self, runner: FaktoryRunner, attempt: AttemptId) -> None:
        self._runner, self._attempt = runner, attempt

    def stop(self) -> None:
        self._runner.end(self._attempt, STOPPED)

"""The interface of runners: the job that they get, and what they return.

All of it happens on the event loop's thread. `start` returns immediately; `end` is called exactly once, later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from stepwell.core.plain_data import immutable
from stepwell.core.plan import Step
from stepwell.core.run.messages import Outcome


@immutable
class Job:
    """An attempt to be executed."""

    run_id: str
    function_id: str
    version: int
    step: Step
    attempt: int
    input: bytes  # the step's input, a JSON document
    code: Path | None  # the read-only folder of the step's code; also for a single file
    code_hash: str | None
    env: Mapping[str, str]  # declared variables: .env, then `env`, then secrets (the last one counts)
    index: int = 0  # of the step in the plan


class Log(Protocol):
    def __call__(self, stream: str, text: bytes, /) -> None:
        """Appends a piece to the attempt's log. `stream` is stdout, stderr or system."""


End = Callable[[Outcome], None]


class Running(Protocol):
    def stop(self) -> None:
        """Kills the attempt with all its processes; `end` is still called. Safe to call twice, and after the end."""


class Runner(Protocol):
    def start(self, job: Job, log: Log, end: End) -> Running:
        """Executes the attempt, within `job.step.timeout_ms`. Never raises: a failed start is a failed outcome."""

    async def close(self) -> None:
        """Kills all running attempts, and waits until they are gone."""


class RemoteRunner(Runner, Protocol):
    """Passes attempts on to workers of another system. They outlive the server.

    `stop` tells the other system, if that is possible; `end` is still called. `close` leaves the attempts alone.
    """

    def start_remote(self, job: Job, log: Log, end: End, accepted: Callable[[], None]) -> Running:
        """Passes on an attempt that was just claimed, and calls `accepted` once the other system has it. There is no
        timeout to observe: the run's timer ends the attempt."""

    def resume(self, job: Job, log: Log, end: End) -> Running:
        """Waits for the end of an attempt that the other system accepted before this server started. The job has no
        input."""


class CannotRun(Exception):
    """A step cannot be executed on this machine. The message contains the missing tool and the fix."""

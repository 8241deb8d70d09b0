"""What the server hands to a runner, and what it gets back.

Everything here happens on the event loop's thread. `start` returns at once; `end` is called exactly once, later.
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
    """One attempt to execute."""

    run_id: str
    function_id: str
    version: int
    step: Step
    attempt: int
    input: bytes  # the JSON document of section 3
    code: Path | None  # the step's code, materialised read-only; a folder, also for a single file
    code_hash: str | None
    env: Mapping[str, str]  # declared: .env < env < secrets


class Log(Protocol):
    def __call__(self, stream: str, text: bytes, /) -> None:
        """Keep a piece of the attempt's log as it comes. `stream`: stdout, stderr or system."""


End = Callable[[Outcome], None]


class Running(Protocol):
    def stop(self) -> None:
        """Kill the attempt with all its processes; `end` is still called. Safe to call twice, and after the end."""


class Runner(Protocol):
    def start(self, job: Job, log: Log, end: End) -> Running:
        """Execute the attempt, within `job.step.timeout_ms`. Never raises: what cannot start is a failed outcome."""

    async def close(self) -> None:
        """Kill what still runs and wait until it is gone."""


class CannotRun(Exception):
    """A step cannot be executed on this machine; the message says which tool is missing and the cure."""

"""What people read of a platform's state, for the API, the console and the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypedDict, TypeVar, Unpack

from stepwell.core.events.events import Event
from stepwell.core.plan import Plan
from stepwell.core.routing.versions import Routing
from stepwell.core.run.run import Run, RunStatus

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """An attempt that is over. `output` and `error` are JSON texts, times milliseconds since the epoch."""

    step: int
    attempt: int
    status: str
    queued_at: int
    started_at: int | None
    ended_at: int
    output: bytes | None
    error: bytes | None


@dataclass(frozen=True, slots=True)
class RunDetail:
    run: Run
    plan: Plan
    event_id: str
    user: str | None
    rerun_of: str | None
    attempts: Sequence[AttemptRow]
    logs: dict[tuple[int, int], bytes]  # by step and attempt
    mismatches: dict[int, str]  # by pause: why `match` had no value for the newest event of the awaited name
    replay: str | None = None
    asked: dict[int, str] = field(default_factory=dict)  # what people are asked, or were, by step; lists leave it out


@dataclass(frozen=True, slots=True)
class EventDetail:
    event: Event
    accepted_at: int
    misses: bytes | None  # JSON: functions it named but did not start
    replay: str | None = None
    invalid: bytes | None = None  # JSON: what its type has against it


@dataclass(frozen=True, slots=True)
class VersionDetail:
    number: int
    created_at: int
    hash: str
    author: str
    message: str


@dataclass(frozen=True, slots=True)
class FunctionDetail:
    id: str
    created_at: int | None
    definition: bytes  # JSON, of the live or else the newest version
    versions: Sequence[VersionDetail]  # the oldest first
    routing: Routing
    waits_by_name: int | None = None  # open waits that are found by their event's name alone; None: not counted

    @property
    def version(self) -> int | None:
        """The live one."""
        return self.routing.live


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Newest first. `next` is where the next page begins, None at the end."""

    items: Sequence[Item]
    next: int | None


class RunQuery(TypedDict, total=False):
    """Which runs a list shows: those for which all of this holds."""

    function: str | None
    status: RunStatus | None
    user: str | None
    event: str | None
    replay: str | None
    since: int | None
    until: int | None
    before: int | None
    limit: int


class Reader(Protocol):
    """The reads of the API. Positions (`before`) count down: a page holds what is older than its position. Events were
    accepted, and runs made, at `since` or later, and before `until` (ms since the epoch)."""

    def read_events(
        self,
        *,
        name: str | None = None,
        user: str | None = None,
        since: int | None = None,
        until: int | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> Page[EventDetail]: ...

    def read_event(self, event_id: str) -> EventDetail | None: ...

    def read_runs(self, **query: Unpack[RunQuery]) -> Page[RunDetail]: ...

    def read_run_texts(self, view: Callable[[RunDetail], bytes], **query: Unpack[RunQuery]) -> Page[bytes]:
        """The same runs, each as `view` shows it. What it makes of a run that has ended may be kept and answered
        again."""

    def read_run(self, run_id: str) -> RunDetail | None: ...

    def read_functions(self) -> list[FunctionDetail]: ...

    def read_function(self, function_id: str) -> FunctionDetail | None: ...

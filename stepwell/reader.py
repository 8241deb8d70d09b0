"""The interface for reading a platform's state, for the API, the console and the command line."""

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
    """An ended attempt. `output` and `error` are JSON texts, times are milliseconds since the epoch."""

    step: int
    attempt: int
    status: str
    queued_at: int
    started_at: int | None
    ended_at: int
    output: bytes | None
    error: bytes | None


@dataclass(frozen=True, slots=True)
class WaitingFor:
    """What a run or a step waits for: a limit under a key (the value as JSON; empty: the limit has no key), the number
    of others that come first, and since when (ms since the epoch)."""

    limit: str
    key: str
    ahead: int
    since: int


@dataclass(frozen=True, slots=True)
class RunDetail:
    run: Run
    plan: Plan
    event_id: str
    user: str | None
    rerun_of: str | None
    attempts: Sequence[AttemptRow]
    logs: dict[tuple[int, int], bytes]  # by step and attempt
    mismatches: dict[int, str]  # by pause: the error of `match` for the newest event of the name
    replay: str | None = None
    asked: dict[int, str] = field(default_factory=dict)  # by step: the messages of approvals; not in lists
    waiting: dict[int, WaitingFor] = field(default_factory=dict)  # by step, `permits.RUN` for the run; not in lists


@dataclass(frozen=True, slots=True)
class EventDetail:
    event: Event
    accepted_at: int
    misses: bytes | None  # JSON: functions with a trigger for the event that it did not start
    replay: str | None = None
    invalid: bytes | None = None  # JSON: the errors under the schema


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
    definition: bytes  # JSON, of the live version, else of the newest one
    versions: Sequence[VersionDetail]  # oldest first
    routing: Routing
    waits_by_name: int | None = None  # open waits that are found by event name alone; None: not counted

    @property
    def version(self) -> int | None:
        """The live version."""
        return self.routing.live


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """A page of items, newest first. `next` is the position of the next page, None at the end."""

    items: Sequence[Item]
    next: int | None


class RunQuery(TypedDict, total=False):
    """Filters for a list of runs; a run must satisfy all of them."""

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
    """Reads events, runs and functions.

    A page contains items before the position `before`, newest first. `since` (inclusive) and `until` (exclusive) limit
    the time at which events were accepted or runs created, in ms since the epoch.
    """

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

    def read_event(self, event_id: str) -> EventDetail | None:
        """An event. The misses include the paused functions that keep the event, which lists leave out."""

    def read_runs(self, **query: Unpack[RunQuery]) -> Page[RunDetail]: ...

    def read_run_texts(self, view: Callable[[RunDetail], bytes], **query: Unpack[RunQuery]) -> Page[bytes]:
        """The same runs, each as the text that `view` returns. Texts of ended runs may be cached."""

    def read_run(self, run_id: str) -> RunDetail | None: ...

    def read_functions(self) -> list[FunctionDetail]: ...

    def read_function(self, function_id: str) -> FunctionDetail | None: ...

"""The seams between the engine and a platform: what keeps state, and what executes steps. Nothing else is in here."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypedDict, TypeVar, Unpack

from stepwell.core.events.events import Event
from stepwell.core.plain_data import immutable
from stepwell.core.plan import Plan
from stepwell.core.routing.not_started import NotStarted
from stepwell.core.routing.triggers import Catalog
from stepwell.core.routing.versions import Routing
from stepwell.core.run.messages import AttemptEnded, Command
from stepwell.core.run.run import Run, RunStatus

if TYPE_CHECKING:
    from stepwell.core.run.inputs import JoinedOutputs

Item = TypeVar("Item")


@dataclass(slots=True)
class RunRecord:
    """A run with everything that its decisions need. `outputs` and `errors` are JSON texts by step index."""

    run: Run
    plan: Plan
    event: Event
    after: int  # events accepted after this position may satisfy its waits
    rerun_of: str | None = None
    replay: str | None = None  # the replay that made it
    order: int = 0  # attempts of earlier runs start first; 0 where nothing queues
    outputs: MutableMapping[int, bytes] = field(default_factory=dict)
    errors: MutableMapping[int, bytes] = field(default_factory=dict)
    causes: dict[int, tuple[str, int]] = field(default_factory=dict)  # of running steps: which message, and when
    joined: JoinedOutputs | None = None  # for inputs of many outputs


@immutable
class Cause:
    """The message that brought a fact or an event. `redelivered`: it was delivered before, and nobody knows how far
    that got, so that what follows from it must be done again where it is still owed."""

    id: str
    redelivered: bool


@immutable
class NewEvent:
    event: Event
    keys: Sequence[bytes]  # under which waits may look for it
    misses: Collection[NotStarted]  # functions it named but did not start
    starts: Sequence[str]  # ids of the functions that it starts
    cause: Cause | None = None
    replay: str | None = None  # it is no news, but kept for this replay: no wait may ever find it


@immutable
class Accepted:
    """`starts`: as they were when the event was first accepted, if this is a redelivery."""

    position: int
    starts: Sequence[str]


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay made of an event: its run, None if the event is unknown. `is_new`: it was not there before."""

    event_id: str
    run_id: str | None
    is_new: bool = False


WaitPlace = tuple[bytes, int, int]  # the key under which a wait is found, its run's row, its pause


@immutable
class OpenedWait:
    """`place`: behind which others are found, in a store that finds some at once."""

    run_id: str
    pause: int
    deadline: int
    place: WaitPlace | None = None


@dataclass(frozen=True, slots=True)
class FoundWaits:
    """`is_all`: there are no others; else there are some, and those behind the last one are not looked at yet.
    `effort`: how many waits could have been woken in the time that it took to find these."""

    waits: Sequence[OpenedWait]
    is_all: bool = True
    effort: int = 1


@dataclass(slots=True)
class Route:
    """What an accepted event is still to do: the functions to start, by id, then the waits to wake, by `keys` and by
    its name: those that were `found`, and, if it `is_awaited`, those behind the place `behind` (None: all)."""

    event: Event
    position: int
    starts: Sequence[str] = ()
    is_awaited: bool = False
    cause: Cause | None = None
    keys: Sequence[bytes] = ()
    behind: WaitPlace | None = None
    found: deque[OpenedWait] = field(default_factory=deque)
    is_first: bool = False  # of the events with its name: none that came before it is left

    @property
    def left(self) -> float:
        """How much is left to do, as far as it is known."""
        return math.inf if self.is_awaited and self.behind else len(self.starts) + len(self.found)


class NotWritten(Exception):
    """The store could not write (it is throttled, the disk is full): the message that asked for it must come again."""


@immutable
class Claim:
    """An attempt that is to be executed once its claim is committed."""

    step: int
    attempt: int
    cause: Cause | None


@immutable
class Change:
    """One transition: the run as it was, the record that holds what it became, and what this asks for."""

    before: Run
    record: RunRecord
    commands: Sequence[Command]
    claims: Sequence[Claim]
    causes: Sequence[Cause]  # of all facts that were folded


@immutable
class Attempt:
    """A claimed attempt, to be executed now."""

    record: RunRecord
    step: int
    attempt: int
    input: bytes
    cause: Cause | None = None


class Idempotency(Protocol):
    """Which run counts for a value of a function's `idempotency`."""

    def claim(self, function_id: str, value: bytes, run_id: str, position: int) -> str:
        """The run that counts: this one, of the event at this position, unless there is one whose event was accepted in
        the 24 hours before. Raises NotWritten."""

    def refuse(self, event: Event, misses: Sequence[NotStarted]) -> None:
        """Keep with an accepted event that it did not start these functions, and why, beside what is kept of others.
        Raises NotWritten."""


class Store(Protocol):
    """State. Every method sees all that was committed before it, also by others (strong consistency).

    `looks_at`: how many events are looked at for a wait at once; None: all.
    """

    looks_at: int | None

    @property
    def idempotency(self) -> Idempotency: ...

    def catalog(self) -> Catalog:
        """The functions that are live now."""

    def position(self, now: int) -> int:
        """The position of the newest accepted event: events are accepted in the order of their positions."""

    def put_events(self, events: Sequence[NewEvent], now: int) -> list[Accepted | NotWritten | None]:
        """Accept events; answers None for a duplicate of an event that is known."""

    def keep(self, function_id: str, event: Event, now: int) -> bool:
        """Keep an accepted event for a paused function until it is resumed; False if that could not be written."""

    def events(self, ids: Sequence[str]) -> dict[str, Event]:
        """Stored events by id."""

    def find_events(self, name: str, key: bytes | None, after: int, before: int) -> Iterator[Event]:
        """Events (no replays) with this name, and key if one is given, in the order in which they were accepted:
        after position `after`, and before time `before` (ms)."""

    def look_on(self, run_id: str, pause: int, after: int) -> None:
        """See to it that the engine is asked to `look` for what satisfies this wait behind that position, too."""

    def find_waits(self, event: Event, keys: Sequence[bytes], behind: WaitPlace | None = None) -> FoundWaits:
        """Open waits for this event's name that have no key or one of these, behind a place; those may be left out that
        the event does not satisfy. Some of many: then the others are asked for, or, if this says that there are none,
        the store sees to it that the engine is asked to `wake` them."""

    def load(self, run_ids: Iterable[str]) -> dict[str, RunRecord]:
        """Runs by id; unknown ones are left out."""

    def waiting(self, record: RunRecord) -> Sequence[AttemptEnded]:
        """Outcomes of a run that are stored, and folded with whatever is folded next; the earliest first."""

    def add(self, record: RunRecord) -> None:
        """Make a run: `load` finds it from now on, its first commit makes it durable."""

    def commit(self, changes: Sequence[Change], now: int) -> Sequence[RunRecord | NotWritten | None]:
        """Write each transition with the records, timers and waits that its commands ask for, if nobody changed the
        run since `before`. Answers the current record for each that lost such a race."""


class Pace(Protocol):
    """How much is done at a time, in a store whose batches are bounded, and who keeps what is left for later ones."""

    @property
    def at_once(self) -> int:
        """How many events, facts and waits are a piece."""

    def count(self, done: int) -> None:
        """So many more events, facts and waits are done."""

    def is_enough(self, left: float) -> bool:
        """Whether so much that is left is for a later batch."""

    def must_wait(self, name: str) -> bool:
        """Whether events with this name are left that came before."""

    def leave(self, routes: Iterable[Route]) -> None:
        """Keep what accepted events are still to do; it is as durable as the batch."""


class Dispatcher(Protocol):
    """Execution. Nothing is started before the commit that claims it is durable."""

    def admit(self, *, calls: bool = False) -> bool:
        """Take a slot for an attempt that could start at once; False if it must queue. `calls`: of a step that calls a
        web address; such steps have slots of their own."""

    def release(self, *, calls: bool = False) -> None:
        """Give back a slot whose attempt is not executed after all."""

    def queue(self, record: RunRecord, step: int, attempt: int, *, calls: bool = False) -> None:
        """Claim this attempt with an `AttemptStarted` when a slot is free: those of earlier runs first, by the order of
        their records, and functions in turns. Queueing one twice is harmless."""

    def start(self, attempt: Attempt) -> None:
        """Execute a claimed attempt; its end comes back as a fact."""

    def stop(self, run_id: str, step: int, attempt: int) -> None:
        """Kill a running attempt."""

    def emit(self, event: Event) -> bool:
        """Tell the world outside of an event of the engine's own. True if it is to be accepted here as well."""


# --- what people read ----------------------------------------------------------------------------------------------


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

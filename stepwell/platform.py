"""The seam between the engine and a platform: the values that cross it, what keeps state, and what executes steps.

A platform gives the engine a `Store`, whose batches are written as a whole, and a `Dispatcher`, which carries out what
follows from a batch. Nothing else is in here: it is longer than other modules, since it is one list of short
declarations, which are read together.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from stepwell.core.events.events import Event
from stepwell.core.plain_data import immutable
from stepwell.core.plan import Plan
from stepwell.core.routing.not_started import NotStarted
from stepwell.core.routing.triggers import Catalog
from stepwell.core.run.messages import AttemptEnded, AttemptStarted, Command, Fact
from stepwell.core.run.run import Run

if TYPE_CHECKING:
    from stepwell.core.run.inputs import JoinedOutputs

AttemptId = tuple[str, int, int]  # run id, step, attempt
Causes = Mapping[int, tuple[str, int]]  # of running steps: which message claimed the attempt, and when


# --- what comes in -------------------------------------------------------------------------------------------------


@immutable
class Cause:
    """The message that brought a fact or an event. `redelivered`: it was delivered before, and nobody knows how far
    that got, so that what follows from it must be done again where it is still owed."""

    id: str
    redelivered: bool


@immutable
class IncomingEvent:
    """An event to accept. `only` names the one function it is for (a tick of its cron trigger)."""

    event: Event
    only: str | None = None
    cause: Cause | None = None


class RunFact(NamedTuple):
    """A fact about a run. `cause`: the message that brought it; None where facts are not delivered by messages."""

    run_id: str
    fact: Fact
    cause: Cause | None = None


# --- events --------------------------------------------------------------------------------------------------------


@immutable
class NewEvent:
    event: Event
    keys: Sequence[bytes]  # under which waits may look for it
    not_started: Collection[NotStarted]  # functions it named but did not start
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


# --- runs ----------------------------------------------------------------------------------------------------------


@immutable
class RunRecord:
    """A run with everything that its decisions need. `outputs` and `errors` are JSON texts by step index."""

    run: Run
    plan: Plan
    event: Event
    after: int  # events accepted after this position may satisfy its waits
    rerun_of: str | None = None
    replay: str | None = None  # the replay that made it
    order: int = 0  # attempts of earlier runs start first; 0 where nothing queues
    outputs: Mapping[int, bytes] = field(default_factory=dict)
    errors: Mapping[int, bytes] = field(default_factory=dict)
    causes: Causes = field(default_factory=dict)
    joined: JoinedOutputs | None = None  # for inputs of many outputs; a cache, which only grows

    def changed(
        self,
        run: Run,
        outputs: Mapping[int, bytes],
        errors: Mapping[int, bytes],
        causes: Causes,
        joined: JoinedOutputs | None,
    ) -> RunRecord:
        """The record of what the run became."""
        return RunRecord(
            run, self.plan, self.event, self.after, self.rerun_of, self.replay, self.order,
            outputs, errors, causes, joined,
        )  # fmt: skip


@immutable
class Claim:
    """An attempt that is to be executed once its claim is committed. `holds_slot`: since it was taken from the
    dispatcher's queue."""

    step: int
    attempt: int
    cause: Cause | None
    holds_slot: bool = False


@immutable
class Transition:
    """What folding facts made of a run: the record as it was, what it became, and what that asks for. `unclaimed`:
    attempts from the dispatcher's queue that need no slot any more."""

    before: RunRecord
    record: RunRecord
    commands: Sequence[Command]
    claims: Sequence[Claim]
    causes: Sequence[Cause]  # of all facts that were folded
    unclaimed: Sequence[AttemptStarted] = ()


# --- effects -------------------------------------------------------------------------------------------------------


@immutable
class Attempt:
    """A claimed attempt, to be executed now."""

    record: RunRecord
    step: int
    attempt: int
    input: bytes
    cause: Cause | None = None


@immutable
class QueuedAttempt:
    """An attempt to claim, with an `AttemptStarted`, when a slot is free."""

    record: RunRecord
    step: int
    attempt: int

    @property
    def is_call(self) -> bool:
        return self.record.plan.steps[self.step].calls


class FreeSlots(NamedTuple):
    """How many attempts could start at once: programs, and calls of web addresses, which have slots of their own."""

    programs: int
    calls: int


@dataclass(slots=True)
class Effects:
    """What is to be done once the transitions that ask for it are committed.

    `released`: attempts that were taken from the queue, and need their slots no more. `events`: the engine's own, for
    the world outside.
    """

    starts: list[Attempt] = field(default_factory=list)
    queued: list[QueuedAttempt] = field(default_factory=list)
    stops: list[AttemptId] = field(default_factory=list)
    released: list[AttemptId] = field(default_factory=list)
    events: list[IncomingEvent] = field(default_factory=list)


# --- the platform --------------------------------------------------------------------------------------------------


class NotWritten(Exception):
    """The store could not write (it is throttled, the disk is full): the message that asked for it must come again."""


class DamagedRun(Exception):
    """What is stored of a run cannot be read, now and later, until somebody mends it."""


class Idempotency(Protocol):
    """Which run counts for a value of a function's `idempotency`."""

    def claim(self, function_id: str, value: bytes, run_id: str, position: int) -> str:
        """The run that counts: this one, of the event at this position, unless there is one whose event was accepted in
        the 24 hours before. Raises NotWritten."""

    def refuse(self, event: Event, not_started: Sequence[NotStarted]) -> None:
        """Keep with an accepted event that it did not start these functions, and why, beside what is kept of others.
        Raises NotWritten."""


class Store(Protocol):
    """State: opens the batches in which the engine reads and writes it."""

    def batch(self, now: int) -> Batch:
        """A new batch, at this time (ms since the epoch); what an earlier one knew is not relied on unless nobody else
        writes."""


class Batch(Protocol):
    """One unit of the engine's work on the state. Every method sees all that was committed before it, also by others
    (strong consistency), and what this batch has done so far.

    `now`: the time of everything in it, in ms since the epoch. `most_events`: how many events are looked at for a wait
    at once; None: all.
    """

    @property
    def now(self) -> int: ...

    @property
    def most_events(self) -> int | None: ...

    @property
    def idempotency(self) -> Idempotency: ...

    def catalog(self) -> Catalog:
        """The functions that are live now."""

    def position(self) -> int:
        """The position of the newest accepted event: events are accepted in the order of their positions."""

    def put_events(self, events: Sequence[NewEvent]) -> list[Accepted | NotWritten | None]:
        """Accept events; answers None for a duplicate of an event that is known."""

    def hold(self, function_id: str, event: Event) -> bool:
        """Keep an accepted event for a paused function until it is resumed; False if that could not be written."""

    def events(self, ids: Sequence[str]) -> dict[str, Event]:
        """Stored events by id, with their positions."""

    def find_events(self, name: str, key: bytes | None, after: int, before: int) -> Iterator[Event]:
        """Events (no replays) with this name, and key if one is given, in the order in which they were accepted:
        after position `after`, and before time `before` (ms)."""

    def continue_scan(self, run_id: str, pause: int, after: int) -> None:
        """See to it that the engine is asked for what satisfies this wait behind that position, too."""

    def find_waits(self, event: Event, keys: Sequence[bytes], behind: WaitPlace | None = None) -> FoundWaits:
        """Open waits for this event's name that have no key or one of these, behind a place; those may be left out that
        the event does not satisfy. Some of many: then the others are asked for, or, if this says that there are none,
        the store sees to it that the engine is asked to `wake` them."""

    def load(self, run_ids: Iterable[str]) -> dict[str, RunRecord]:
        """Runs by id; unknown ones are left out. Raises DamagedRun."""

    def pending_outcomes(self, record: RunRecord) -> Sequence[AttemptEnded]:
        """Outcomes of a run that are stored, and folded with whatever is folded next; the earliest first."""

    def add(self, record: RunRecord) -> None:
        """Make a run: `load` finds it from now on, its first commit makes it durable."""

    def commit(self, transitions: Sequence[Transition]) -> Sequence[RunRecord | NotWritten | None]:
        """Write each transition with the records, timers and waits that its commands ask for, if nobody changed the
        run since `before`; `load` answers the new record from then on. Answers the current record for each that lost
        such a race."""


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

    def slots(self) -> FreeSlots:
        """How many attempts could start at once. None, if some are queued: those come first."""

    def carry_out(self, effects: Effects) -> Sequence[IncomingEvent]:
        """Start, queue and stop attempts, and tell the world outside of events, once the batch is durable. A start
        takes a slot, unless it holds one; its end comes back as a fact. Queued attempts are claimed with an
        `AttemptStarted` when a slot is free: those of earlier runs first, by the order of their records, and functions
        in turns; to queue one twice is harmless. Answers the events that are to be accepted here as well."""

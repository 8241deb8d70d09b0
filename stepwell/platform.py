"""The interface between the engine and a platform: the values they exchange, the store, and the dispatcher.

A platform provides a `Store`, whose batches are written as a whole, and a `Dispatcher`, which carries out the effects
of a batch. The module is longer than others because these short declarations are read together.
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
from stepwell.start_checks import StartChecks

if TYPE_CHECKING:
    from stepwell.core.run.inputs import JoinedOutputs

AttemptId = tuple[str, int, int]  # run id, step, attempt
Causes = Mapping[int, tuple[str, int]]  # by running step: the message that claimed the attempt, and the time


# --- inputs --------------------------------------------------------------------------------------------------------


@immutable
class Cause:
    """The message that brought a fact or an event.

    `redelivered`: it was delivered before, and it is unknown how far it was processed. So effects that are still owed
    must be repeated.
    """

    id: str
    redelivered: bool


@immutable
class IncomingEvent:
    """An event to accept. `only` is the id of the only function that it may start (for a tick of a cron trigger)."""

    event: Event
    only: str | None = None
    cause: Cause | None = None


class RunFact(NamedTuple):
    """A fact about a run. `cause` is the message that brought it; None if facts are not delivered by messages."""

    run_id: str
    fact: Fact
    cause: Cause | None = None


# --- events --------------------------------------------------------------------------------------------------------


@immutable
class NewEvent:
    event: Event
    keys: Sequence[bytes]  # the keys under which waits find it
    not_started: Collection[NotStarted]  # functions with a trigger for it that it does not start
    starts: Sequence[str]  # ids of the functions that it starts
    cause: Cause | None = None
    replay: str | None = None  # the replay that it is stored for; no wait may find it


@immutable
class Accepted:
    """An accepted event. For a redelivery, `starts` are the functions of the first time."""

    position: int
    starts: Sequence[str]


@dataclass(frozen=True, slots=True)
class Replayed:
    """A replayed event. `run_id` is None if the event is unknown or does not start a run now, with the reason in
    `problem`; `is_new`: the run was created now."""

    event_id: str
    run_id: str | None
    is_new: bool = False
    problem: str | None = None


WaitPlace = tuple[bytes, int, int]  # the key of a wait, the row of the run, the pause


@immutable
class OpenedWait:
    """An open wait. `place` is the position to continue after, in a store that finds waits in pages."""

    run_id: str
    pause: int
    deadline: int
    place: WaitPlace | None = None


@dataclass(frozen=True, slots=True)
class FoundWaits:
    """A page of waits. `is_all`: there are no more after these.

    `effort` is the time of the search, as the number of waits that could have been woken in it.
    """

    waits: Sequence[OpenedWait]
    is_all: bool = True
    effort: int = 1


@dataclass(slots=True)
class Route:
    """What an accepted event must still start and wake.

    `starts` are ids of functions, `found` are waits that were found. If `is_awaited`, there may be more waits after the
    place `behind` (None: all).
    """

    event: Event
    starts: Sequence[str] = ()
    is_awaited: bool = False
    cause: Cause | None = None
    keys: Sequence[bytes] = ()
    behind: WaitPlace | None = None
    found: deque[OpenedWait] = field(default_factory=deque)
    is_first: bool = False  # no earlier event of the same name is left

    @property
    def left(self) -> float:
        """The known number of functions and waits that are left."""
        return math.inf if self.is_awaited and self.behind else len(self.starts) + len(self.found)


# --- runs ----------------------------------------------------------------------------------------------------------


@immutable
class RunRecord:
    """A run with everything that decisions on it need. `outputs` and `errors` are JSON texts by step index."""

    run: Run
    plan: Plan
    event: Event
    after: int  # events accepted after this position may satisfy the run's waits
    rerun_of: str | None = None
    replay: str | None = None  # the replay that created the run
    order: int = 0  # attempts of runs with a lower order start first; 0 on platforms without a queue
    outputs: Mapping[int, bytes] = field(default_factory=dict)
    errors: Mapping[int, bytes] = field(default_factory=dict)
    causes: Causes = field(default_factory=dict)
    joined: JoinedOutputs | None = None  # a cache for inputs with many outputs

    def changed(
        self,
        run: Run,
        outputs: Mapping[int, bytes],
        errors: Mapping[int, bytes],
        causes: Causes,
        joined: JoinedOutputs | None,
    ) -> RunRecord:
        """A copy of the record with a changed run."""
        return RunRecord(
            run, self.plan, self.event, self.after, self.rerun_of, self.replay, self.order,
            outputs, errors, causes, joined,
        )  # fmt: skip


@immutable
class Claim:
    """An attempt to execute when the claim is committed. `holds_slot`: it was taken from the dispatcher's queue."""

    step: int
    attempt: int
    cause: Cause | None
    holds_slot: bool = False


@immutable
class Transition:
    """The result of folding facts into a run: the record before and after, the commands and the claims.

    `unclaimed` are attempts from the dispatcher's queue that no longer need a slot.
    """

    before: RunRecord
    record: RunRecord
    commands: Sequence[Command]
    claims: Sequence[Claim]
    causes: Sequence[Cause]  # the causes of all folded facts
    unclaimed: Sequence[AttemptStarted] = ()


# --- effects -------------------------------------------------------------------------------------------------------


@immutable
class Attempt:
    """A claimed attempt to execute now."""

    record: RunRecord
    step: int
    attempt: int
    input: bytes
    cause: Cause | None = None


@immutable
class QueuedAttempt:
    """An attempt to claim, with an `AttemptStarted`, when a slot is free; with the step `permits.RUN`, a run that
    starts, with a `RunStarted`, when its limits allow it. `cause`: the last message that changed the run."""

    record: RunRecord
    step: int
    attempt: int
    cause: Cause | None = None


class Ended(NamedTuple):
    """A limited attempt that has ended, or a run whose start was limited; then the step is `permits.RUN`."""

    run_id: str
    step: int
    attempt: int
    cause: Cause | None = None


class FreeSlots(NamedTuple):
    """The number of attempts that could start now: programs, and HTTP calls, which have separate slots."""

    programs: int
    calls: int


@dataclass(slots=True)
class Effects:
    """What to do when the transitions are committed.

    `released` are attempts from the queue that no longer need their slots. `events` are events of the engine to send;
    `emitted` are those that steps send, which must be durable when `carry_out` returns, or with the batch.
    `held` are runs that start when their limits allow it. `ended` are runs and attempts that have ended and were
    limited, so that their permits are free.
    """

    starts: list[Attempt] = field(default_factory=list)
    queued: list[QueuedAttempt] = field(default_factory=list)
    stops: list[AttemptId] = field(default_factory=list)
    released: list[AttemptId] = field(default_factory=list)
    events: list[IncomingEvent] = field(default_factory=list)
    emitted: list[IncomingEvent] = field(default_factory=list)
    held: list[QueuedAttempt] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)


# --- the platform --------------------------------------------------------------------------------------------------


class NotWritten(Exception):
    """The store could not write (throttled, or the disk is full). The message must be redelivered."""


class DamagedRun(Exception):
    """The stored data of a run cannot be read, and a retry does not help."""


class Store(Protocol):
    """Stores the state. Opens the batches in which the engine reads and writes it."""

    def batch(self, now: int) -> Batch:
        """Opens a batch at this time (ms since the epoch). It may only reuse cached data of an earlier batch if nobody
        else writes."""


class Batch(Protocol):
    """One unit of the engine's work on the state. Every method sees all earlier commits, also by others (strong
    consistency), and what this batch has done so far.

    `now` is the time of everything in it, in ms since the epoch. `most_events` is the maximum number of events to scan
    for a wait; None: no limit.
    """

    @property
    def now(self) -> int: ...

    @property
    def most_events(self) -> int | None: ...

    @property
    def checks(self) -> StartChecks: ...

    def catalog(self) -> Catalog:
        """The functions that are live."""

    def position(self) -> int:
        """The position of the newest accepted event. Positions are the order in which events were accepted."""

    def put_events(self, events: Sequence[NewEvent]) -> list[Accepted | NotWritten | None]:
        """Accepts events. Returns None for a duplicate."""

    def hold(self, function_id: str, event: Event) -> bool:
        """Keeps an accepted event for a paused function until it is resumed. Returns False if it was not written."""

    def events(self, ids: Sequence[str]) -> dict[str, Event]:
        """Stored events by id, with their positions."""

    def find_events(self, name: str, key: bytes | None, after: int, before: int) -> Iterator[Event]:
        """Yields events (no replays) with this name, and with this key if given, in the order of acceptance: after the
        position `after`, and before the time `before` (ms)."""

    def continue_scan(self, run_id: str, pause: int, after: int) -> None:
        """Arranges for the engine to continue the scan for this wait after that position."""

    def find_waits(self, event: Event, keys: Sequence[bytes], behind: WaitPlace | None = None) -> FoundWaits:
        """Finds open waits after a place, for the event's name, without a key or with one of these keys.

        Waits that the event does not satisfy may be left out. The result may be a page. If `is_all` is true although
        there are more, the store arranges for the engine to `wake` the others.
        """

    def load(self, run_ids: Iterable[str]) -> dict[str, RunRecord]:
        """Runs by id; unknown ones are left out. Raises DamagedRun."""

    def pending_outcomes(self, record: RunRecord) -> Sequence[AttemptEnded]:
        """Stored outcomes of a run, earliest first, which are folded before the next facts."""

    def add(self, record: RunRecord) -> None:
        """Adds a new run: `load` finds it from now on, and the first commit makes it durable."""

    def commit(self, transitions: Sequence[Transition]) -> Sequence[RunRecord | NotWritten | None]:
        """Writes each transition with the attempts, timers and waits of the commands, unless the run was changed since
        `before`. Returns for each transition None if it was written, else the current record of the run, or
        NotWritten."""


class Pace(Protocol):
    """Limits the work of a batch, and stores the routes that are left for later batches."""

    @property
    def at_once(self) -> int:
        """The number of events, facts and waits in a piece of work."""

    def count(self, done: int) -> None:
        """Counts events, facts and waits that are done."""

    def is_enough(self, left: float) -> bool:
        """Whether `left` more functions and waits should be left for a later batch."""

    def must_wait(self, name: str) -> bool:
        """Whether earlier events with this name are left."""

    def leave(self, routes: Iterable[Route]) -> None:
        """Stores routes for a later batch, in the transaction of this batch."""


class Dispatcher(Protocol):
    """Executes attempts. An attempt is only started when the commit with the claim is durable."""

    def slots(self) -> FreeSlots:
        """The number of attempts that could start now; zero if attempts are queued, because those come first."""

    def carry_out(self, effects: Effects) -> Sequence[IncomingEvent]:
        """Starts, queues and stops attempts, and sends events, when the batch is durable. Returns the events to accept
        on this platform too. Raises an error if events of steps could not be sent.

        A start takes a slot, unless the attempt holds one; the end comes back as a fact. Queued attempts are claimed
        with an `AttemptStarted` when a slot is free, functions in turns, and by `order` of the run. Queueing an attempt
        twice is harmless. Limited attempts and held runs also wait until their limits allow the start.
        """

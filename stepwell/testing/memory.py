"""The engine's store in memory, and a dispatcher that records effects, for tests of the engine.

Several batches may be open at once, as on AWS. A transition is refused if another batch has changed the run meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from stepwell.core.events.events import Event
from stepwell.core.plan import Plan, RateLimit
from stepwell.core.routing.heads import wait_paths
from stepwell.core.routing.not_started import NotStarted
from stepwell.core.routing.triggers import Catalog
from stepwell.core.routing.versions import Route, State
from stepwell.core.run.messages import AttemptEnded, ClearTimer, CloseWait, OpenWait, RecordAttempt, SetTimer, Timer
from stepwell.platform import (
    Accepted,
    Effects,
    FoundWaits,
    FreeSlots,
    IncomingEvent,
    NewEvent,
    NotWritten,
    OpenedWait,
    RunFact,
    RunRecord,
    Transition,
    WaitPlace,
)
from stepwell.start_checks import Holder

_DAY_MS = 86_400_000


@dataclass(slots=True)
class StoredEvent:
    event: Event
    keys: Sequence[bytes]
    accepted_at: int
    cause: str | None = None
    starts: Sequence[str] = ()
    replay: str | None = None
    not_started: list[NotStarted] = field(default_factory=list)


class MemoryStore:
    """Implements `platform.Store`. `plans`: the plans of live functions."""

    def __init__(self, *plans: Plan) -> None:
        self.plans = {plan.function_id: plan for plan in plans}
        self.paused: set[str] = set()
        self.events: dict[str, StoredEvent] = {}  # in order of acceptance
        self.held: dict[str, list[Event]] = {}  # by function
        self.runs: dict[str, RunRecord] = {}
        self.attempts: dict[tuple[str, int, int], RecordAttempt] = {}
        self.timers: dict[tuple[str, Timer], int] = {}
        self.waits: dict[tuple[str, int], tuple[str, bytes | None, int]] = {}  # name, key, deadline
        self.checks = MemoryStartChecks(self)

    def batch(self, now: int) -> MemoryBatch:
        return MemoryBatch(self, now)

    def catalog(self) -> Catalog:
        states = {name: State.PAUSED if name in self.paused else State.ON for name in self.plans}
        waits = [(pause.event, pause.match) for plan in self.plans.values() for pause in plan.pauses if pause.event]
        return Catalog([Route(plan, state=states[name]) for name, plan in self.plans.items()], wait_paths(waits))

    def take_due(self, now: int) -> list[RunFact]:
        """Removes the due timers, and returns their facts."""
        due = [name for name, due_at in self.timers.items() if due_at <= now]
        for name in due:
            del self.timers[name]
        return [RunFact(run_id, timer.fact()) for run_id, timer in due]


class MemoryIdempotency:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._claims: dict[tuple[str, bytes], tuple[str, int]] = {}  # run id, and the time of the run's event

    def claim(self, function_id: str, value: bytes, run_id: str, position: int) -> str:
        at = next(stored.accepted_at for stored in self._store.events.values() if stored.event.position == position)
        first, since = self._claims.get((function_id, value), ("", at - _DAY_MS))
        if at - since >= _DAY_MS:
            self._claims[function_id, value] = first, _ = run_id, at
        return first

    def release(self, function_id: str, value: bytes, run_id: str) -> None:
        if self._claims.get((function_id, value), ("", 0))[0] == run_id:
            del self._claims[function_id, value]


class MemoryRateLimits:
    def __init__(self) -> None:
        self.starts: dict[tuple[str, bytes], dict[str, int]] = {}  # times by run, in order

    def claim(
        self, function_id: str, key: bytes, limit: RateLimit, run_id: str, now: int, *, again: bool
    ) -> int | None:
        starts = self.starts.setdefault((function_id, key), {})
        if run_id in starts and not again:
            return None
        starts.pop(run_id, None)
        within = [at for at in starts.values() if at > now - limit.period_ms]
        if len(within) >= limit.limit:
            return within[-limit.limit] + limit.period_ms
        starts[run_id] = max(now, *within) if within else now
        return None

    def release(self, function_id: str, key: bytes, run_id: str) -> None:
        self.starts.get((function_id, key), {}).pop(run_id, None)


class MemorySingletons:
    write_ms = 60_000

    def __init__(self) -> None:
        self.holders: dict[tuple[str, bytes], Holder] = {}

    def read(self, function_id: str, key: bytes) -> Holder | None:
        return self.holders.get((function_id, key))

    def take(self, function_id: str, key: bytes, seen: Holder | None, new: Holder, plan: Plan) -> bool:
        if self.holders.get((function_id, key)) != seen:
            return False
        self.holders[function_id, key] = new
        return True


class MemoryStartChecks:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.idempotency, self.rate_limits = MemoryIdempotency(store), MemoryRateLimits()
        self.singletons = MemorySingletons()

    def refuse(self, event: Event, not_started: Sequence[NotStarted]) -> None:
        self._store.events[event.id].not_started += not_started

    def refused(self, event: Event) -> Collection[str]:
        return {miss.function_id for miss in self._store.events[event.id].not_started}


class MemoryBatch:
    """Implements `platform.Batch`. Commits take effect at once."""

    most_events: int | None = None

    def __init__(self, store: MemoryStore, now: int) -> None:
        self.now, self._store = now, store
        self._added: dict[str, RunRecord] = {}
        self.continued: list[tuple[str, int, int]] = []

    @property
    def checks(self) -> MemoryStartChecks:
        return self._store.checks

    def catalog(self) -> Catalog:
        return self._store.catalog()

    def position(self) -> int:
        return len(self._store.events)

    def put_events(self, events: Sequence[NewEvent]) -> list[Accepted | NotWritten | None]:
        return [self._put(new) for new in events]

    def _put(self, new: NewEvent) -> Accepted | None:
        known, cause = self._store.events.get(new.event.id), None if new.cause is None else new.cause.id
        if known is not None:
            is_same = cause is not None and cause == known.cause
            return Accepted(known.event.position, known.starts) if is_same else None
        event = new.event.at_position(len(self._store.events) + 1)
        not_started = list(new.not_started)
        self._store.events[event.id] = StoredEvent(
            event, new.keys, self.now, cause, new.starts, new.replay, not_started
        )
        return Accepted(event.position, new.starts)

    def hold(self, function_id: str, event: Event) -> bool:
        self._store.held.setdefault(function_id, []).append(event)
        return True

    def events(self, ids: Sequence[str]) -> dict[str, Event]:
        return {event_id: self._store.events[event_id].event for event_id in ids if event_id in self._store.events}

    def find_events(self, name: str, key: bytes | None, after: int, before: int) -> Iterator[Event]:
        for stored in list(self._store.events.values()):
            is_in_time = stored.event.position > after and stored.accepted_at < before
            if is_in_time and stored.event.name == name and stored.replay is None and (not key or key in stored.keys):
                yield stored.event

    def continue_scan(self, run_id: str, pause: int, after: int) -> None:
        self.continued.append((run_id, pause, after))

    def find_waits(self, event: Event, keys: Sequence[bytes], behind: WaitPlace | None = None) -> FoundWaits:
        found = [
            OpenedWait(run_id, pause, deadline)
            for (run_id, pause), (name, key, deadline) in self._store.waits.items()
            if name == event.name and (key is None or key in keys)
        ]
        return FoundWaits(found)

    def load(self, run_ids: Iterable[str]) -> dict[str, RunRecord]:
        known = {**self._store.runs, **self._added}
        return {run_id: known[run_id] for run_id in run_ids if run_id in known}

    def pending_outcomes(self, record: RunRecord) -> Sequence[AttemptEnded]:
        return ()

    def add(self, record: RunRecord) -> None:
        self._added[record.run.id] = replace(record, order=len(self._store.runs) + len(self._added) + 1)

    def commit(self, transitions: Sequence[Transition]) -> Sequence[RunRecord | NotWritten | None]:
        return [self._commit(transition) for transition in transitions]

    def _commit(self, transition: Transition) -> RunRecord | None:
        store, record = self._store, transition.record
        run_id, current = record.run.id, store.runs.get(record.run.id)
        self._added.pop(run_id, None)
        if current is not None and current is not transition.before:
            return current
        store.runs[run_id] = record
        for command in transition.commands:
            if isinstance(command, RecordAttempt):
                store.attempts[run_id, command.step, command.attempt] = command
            elif isinstance(command, SetTimer):
                store.timers[run_id, command.timer] = command.due_at
            elif isinstance(command, ClearTimer):
                store.timers.pop((run_id, command.timer), None)
            elif isinstance(command, OpenWait):
                name = record.plan.pauses[command.pause].event or ""
                store.waits[run_id, command.pause] = name, command.key, command.deadline
            elif isinstance(command, CloseWait):
                store.waits.pop((run_id, command.pause), None)
        return None


class RecordingDispatcher:
    """Implements `platform.Dispatcher`: has a number of free slots, and records the effects."""

    def __init__(self, programs: int = 1000, calls: int = 1000) -> None:
        self.free = FreeSlots(programs, calls)
        self.effects = Effects()

    def slots(self) -> FreeSlots:
        return FreeSlots(0, 0) if self.effects.queued else self.free

    def carry_out(self, effects: Effects) -> Sequence[IncomingEvent]:
        for attempt in effects.starts:
            calls = attempt.record.plan.steps[attempt.step].calls
            self.free = FreeSlots(self.free.programs - (not calls), self.free.calls - calls)
        for name in ("starts", "queued", "stops", "released", "events", "emitted"):
            getattr(self.effects, name).extend(getattr(effects, name))
        return [*effects.events, *effects.emitted]

    def take(self) -> Effects:
        """The effects since the last call."""
        taken, self.effects = self.effects, Effects()
        return taken

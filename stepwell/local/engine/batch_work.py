"""The work of one batch, in pieces: calls first, then runs that have begun, then events that start or wake runs.

The only module of the local platform that calls the engine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import field

from stepwell.core.events.events import Event, Invalid, event_from
from stepwell.core.plain_data import immutable
from stepwell.core.run.approvals import Link, Standing, standing
from stepwell.core.run.messages import AttemptEnded, AttemptStarted, Outcome, RunStarted
from stepwell.core.run.resume import Restart
from stepwell.engine.accept import resume
from stepwell.engine.loop import Engine
from stepwell.engine.replay import replay_events
from stepwell.engine.rerun import rerun
from stepwell.engine.work import Undone
from stepwell.local.engine.backlog import Backlog, Call
from stepwell.local.engine.batch_limit import AT_ONCE, BatchPace
from stepwell.local.engine.executor import Executor
from stepwell.local.engine.fact_retries import FactRetries
from stepwell.local.engine.settings import Settings
from stepwell.local.store.batch import LocalBatch
from stepwell.local.store.store import LocalStore
from stepwell.platform import IncomingEvent, NotWritten, Replayed, RunFact

_MOST_CALLS = 10  # in one batch
_LARGE = 200  # events: larger requests are slow to accept, so runs that have begun must progress in between
_BETWEEN_LARGE = 4  # batches between two large requests


class UnknownRun(KeyError):
    """There is no run with this id."""


@immutable
class Batch:
    """One batch. It begins with `calls` and `arrivals`; `facts` are all that it has taken from the backlog."""

    now: int
    set_back_ms: int  # by how much stored times must be moved back, since the clock was set back
    has_due: bool  # whether timers or cron ticks are due
    pace: BatchPace
    calls: Sequence[Call]
    arrivals: Sequence[IncomingEvent]
    facts: list[RunFact] = field(default_factory=list)
    undone: Undone = field(default_factory=Undone)


class BatchWork:
    def __init__(
        self,
        engine: Engine,
        store: LocalStore,
        executor: Executor,
        backlog: Backlog,
        fact_retries: FactRetries,
        settings: Settings,
    ) -> None:
        self._engine, self._store, self._executor, self._backlog = engine, store, executor, backlog
        self._fact_retries, self._settings = fact_retries, settings
        self._awaits_retry = False  # a batch failed, perhaps because of unrouted events: these wait until `try_again`
        self._until_large = 0  # batches until another large request may be accepted
        self._releases_held = False

    @property
    def has_more(self) -> bool:
        """Whether there is work for another batch."""
        is_left = self._store.unrouted and not self._awaits_retry
        return bool(self._backlog or self._releases_held or is_left or self._executor.can_take)

    def begin(self, now: int, set_back_ms: int, *, has_due: bool) -> Batch:
        """Takes from the backlog what the next batch begins with."""
        settings = self._settings
        pace = BatchPace(self._store.unrouted, settings.batch_facts, settings.batch_s)
        calls, arrivals = self._backlog.calls.take(_MOST_CALLS), self._take_arrivals()
        self._until_large = _BETWEEN_LARGE if len(arrivals) > _LARGE else self._until_large - 1
        return Batch(now, set_back_ms, has_due, pace, calls, arrivals)

    def steps(self, batch: Batch, transaction: LocalBatch) -> Iterator[None]:
        """Does the batch, one piece per step."""
        if batch.set_back_ms:
            yield from transaction.move_back(batch.set_back_ms)
            self._executor.limits.move_back(batch.set_back_ms)
        self._executor.limits.begin_batch()
        for call in batch.calls:
            call(transaction)
            yield
        ticks, facts = self._take_due(batch.now) if batch.has_due else ([], [])
        yield from self._advance_runs(batch, transaction, facts)
        yield from self._route_events(batch, transaction, [*ticks, *batch.arrivals])
        yield from self._start_queued(batch, transaction)
        self._fact_retries.set_timers(transaction, batch.undone.facts)
        transaction.write()
        yield

    def committed(self, batch: Batch) -> None:
        """The batch is durable: facts that could not be folded are submitted again later."""
        self._fact_retries.add(batch.undone.facts)

    def undo(self, batch: Batch | None) -> None:
        """The batch was rolled back: facts return to the backlog, and unrouted events wait until `try_again`."""
        if batch is not None:
            self._backlog.facts.give_back(batch.facts)
        self._releases_held = self._awaits_retry = True

    def try_again(self) -> None:
        self._awaits_retry = False

    def release_held_events(self) -> None:
        """Routes, a few with every batch, the events that were held while their functions were paused."""
        self._releases_held = True

    # --- the pieces of a batch -------------------------------------------------------------------------------------

    def _take_arrivals(self) -> list[IncomingEvent]:
        """The events of the next requests. Large requests wait until runs have progressed since the last one."""
        is_early = self._until_large > 0 and (self._backlog.facts or self._store.unrouted)
        return self._backlog.take_arrivals(AT_ONCE, _LARGE if is_early else math.inf)

    def _take_due(self, now: int) -> tuple[list[IncomingEvent], list[RunFact]]:
        """Due cron ticks and guard events, and the facts of due timers."""
        facts = [RunFact(run_id, timer.fact()) for run_id, timer in self._store.timers.take_due(now)]
        functions = self._store.functions
        ticks = [IncomingEvent(event_from(tick), only=name) for name, tick in functions.schedules.take_ticks(now)]
        return [*ticks, *(IncomingEvent(event) for event in functions.guard(now))], facts

    def _advance_runs(self, batch: Batch, transaction: LocalBatch, facts: list[RunFact]) -> Iterator[None]:
        """Advances runs that have begun: folds their facts, then claims queued attempts for free slots."""
        steps, undone, pace = self._engine.steps, batch.undone, batch.pace
        while (taken := self._backlog.facts.take(AT_ONCE)) or facts:
            batch.facts.extend(taken)
            yield from steps(transaction, [], taken + facts, undone, pace)
            facts = []
            if pace.is_over:
                break
        yield from self._start_queued(batch, transaction)

    def _start_queued(self, batch: Batch, transaction: LocalBatch) -> Iterator[None]:
        """Starts runs that limits have held, and claims queued attempts for free slots."""
        while self._executor.can_take:
            starts = self._executor.limits.take_starts(AT_ONCE)
            claims = self._executor.take_queued(AT_ONCE)
            started = [RunFact(run_id, RunStarted()) for run_id in starts]
            started += [RunFact(run_id, AttemptStarted(step, number)) for run_id, step, number in claims]
            yield from self._engine.steps(transaction, [], started, batch.undone, batch.pace)
            if batch.pace.is_over:
                break

    def _route_events(self, batch: Batch, transaction: LocalBatch, arrivals: list[IncomingEvent]) -> Iterator[None]:
        """Lets events start and wake runs: new events, held ones, and those that earlier batches left unrouted.

        Each group gets at least one piece per batch, so that all progress."""
        steps, undone, pace = self._engine.steps, batch.undone, batch.pace
        while arrivals:
            yield from steps(transaction, arrivals, [], undone, pace)
            arrivals = [] if pace.is_over else self._take_arrivals()
        while self._releases_held:
            yield from steps(transaction, [], self._resume_some(transaction), undone, pace)
            if pace.is_over:
                break
        while self._store.unrouted and not self._awaits_retry:
            pace.grant()
            yield from steps(transaction, [], [], undone, pace, self._store.unrouted.take(AT_ONCE))
            if pace.is_over or self._executor.has_queued:  # new attempts would only be queued too
                break

    def _resume_some(self, transaction: LocalBatch) -> list[RunFact]:
        """Facts that start runs for held events; the events are taken in the same transaction."""
        functions = self._store.functions
        for function_id in functions.with_held_events():
            if ids := functions.take_held_events(function_id, AT_ONCE):
                events = transaction.events(ids)
                return resume(transaction, function_id, [events[name] for name in ids if name in events], None)
        self._releases_held = False
        return []

    # --- calls, as parts of a batch --------------------------------------------------------------------------------

    def decide(self, batch: LocalBatch, link: Link, outcome: Outcome) -> bool:
        """Ends an approval with this outcome. Returns False if it is not open any more. Raises NotWritten."""
        record = batch.load([link.run_id]).get(link.run_id)
        if record is None or standing(record.run, link, batch.now) is not Standing.OPEN:
            return False
        decision = RunFact(link.run_id, AttemptEnded(link.step, link.attempt, outcome))
        if self._engine.process(batch, [], [decision]):
            raise NotWritten(f"the decision on run {link.run_id} could not be written")
        return True

    def rerun(self, batch: LocalBatch, run_id: str, token: str, restart: Restart | None) -> str | None:
        """The id of the new run; None if the function is not live any more. Raises UnknownRun, CannotResume,
        NotWritten."""
        record = batch.load([run_id]).get(run_id)
        if record is None:
            raise UnknownRun(run_id)
        return rerun(self._engine, batch, record, token, restart=restart)

    def replay(
        self, batch: LocalBatch, function_id: str, version: int, events: Sequence[str | Event], replay: str
    ) -> list[Replayed] | None:
        """The result for each event; None if the version does not exist. Raises NotWritten."""
        plan = self._store.functions.use(function_id, version)
        return None if plan is None else replay_events(self._engine, batch, plan, events, replay)

    def refuse(self, event: Event, errors: Sequence[Invalid], now: int) -> list[IncomingEvent]:
        """Engine events that report an event refused by an event type."""
        return self._engine.refuse(event, errors, now)

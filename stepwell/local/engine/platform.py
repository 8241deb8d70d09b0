"""The local platform: an event loop that takes what is pending into one engine batch and one transaction, until it has
done enough. A batch is done in pieces, so that requests are answered in between.

That is group commit: whoever waits is answered, and what was claimed is launched, only when the batch is durable.
Everything in here happens on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from stepwell.core.events.events import Event, event_from
from stepwell.core.events.request import BadRequest, EventError
from stepwell.core.plain_data import immutable
from stepwell.core.routing import versions
from stepwell.core.routing.versions import NotPossible, Release, Routing
from stepwell.core.run.approvals import Link, Links, Standing, standing
from stepwell.core.run.messages import AttemptEnded, AttemptLost, AttemptStarted, CancelRequested, Outcome
from stepwell.core.run.resume import CannotResume, Restart
from stepwell.core.run.run import StepStatus
from stepwell.core.signing import single_key
from stepwell.engine import Engine, IncomingEvent, RunFact
from stepwell.event_types.changes import check_type
from stepwell.event_types.effort import Effort
from stepwell.event_types.types import MOST_TOLD, Change, Refused, TypeVersion, errors_of
from stepwell.local.database.clock_steps import TOLERANCE_MS, newest_time
from stepwell.local.database.functions import Registered
from stepwell.local.database.keys import link_secret
from stepwell.local.database.log_files import LogFiles
from stepwell.local.database.store import LocalStore
from stepwell.local.database.wal import WriteAheadLog
from stepwell.local.engine.attempt_logs import AttemptLogs
from stepwell.local.engine.backlog import Backlog, Call, Line
from stepwell.local.engine.batch_limit import BatchPace
from stepwell.local.engine.clock import LOOK_AGAIN_S, Clock
from stepwell.local.engine.executor import Executor
from stepwell.local.engine.jobs import Jobs
from stepwell.local.engine.slots import DEFAULT_HTTP_SLOTS, AttemptId
from stepwell.local.runners.job import Runner
from stepwell.platform import Replayed

log = logging.getLogger("stepwell.local")

_LOG_DELAY_S = 0.05  # how long a piece of a log may wait for a batch to be written with
_RECOVER_AT_ONCE = 500
_AT_ONCE = 50  # events, facts and waits between two looks at the clock
_SLICE_S = 0.005  # how long a batch may keep the loop from answering requests
_MOST_CALLS = 10  # of a batch
_LARGE = 200  # events: a request with more is dear to accept, and runs that have begun shall get on in between
_BETWEEN_LARGE = 4  # batches

DEFAULT_URL = "http://127.0.0.1:8288"

T = TypeVar("T")


class Unavailable(Exception):
    """The batch could not be written (is the disk full?); nothing of it was accepted. Try again."""


@dataclass(frozen=True, slots=True)
class Settings:
    parallelism: int
    env: str = "dev"
    secret: Callable[[str], str | None] = lambda name: None
    retry_s: float = 1.0  # after a batch that could not be committed (disk full, ...)
    public_url: str = DEFAULT_URL  # where people reach the API
    http_slots: int = DEFAULT_HTTP_SLOTS
    look_again_s: float = LOOK_AGAIN_S  # at the clock, while a timer is awaited
    batch_facts: int = 500  # events and facts after which a batch ends, and what events are still to do is left
    batch_s: float = 0.02  # and seconds


@immutable
class _Batch:
    """`calls` and `arrivals` are what it begins with, `facts` all that it has taken of the backlog."""

    now: int
    set_back_ms: int  # how far the clock was set back, as far as this batch follows it
    pace: BatchPace
    calls: Sequence[Call]
    arrivals: Sequence[IncomingEvent]
    facts: list[RunFact] = field(default_factory=list)


class LocalPlatform:
    def __init__(self, store: LocalStore, runner: Runner, code: Path, clock: Clock, settings: Settings) -> None:
        self.store, self.clock, self.code = store, clock, code
        self.code_lock = asyncio.Lock()  # from when code is put there until a version names it, nobody cleans up
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        jobs = Jobs(store, code, settings.secret)
        self.executor = Executor(runner, jobs.make, self, settings.parallelism, settings.http_slots)
        self.wal = WriteAheadLog(store.path)
        self.links = Links(settings.public_url, single_key(link_secret(store.connection)))
        self._engine = Engine(store, self.executor, settings.env, lambda: self.links)
        self._backlog = Backlog()
        self.batches = 0  # so many have begun
        self._batch: _Batch | None = None  # that is being written
        self._steps: Iterator[None] = iter(())  # what is left to do of it, a piece at a time
        self._is_wary = False  # a batch failed: what events are still to do may be why, and waits for another try
        self._until_large = 0  # batches, before the next large request is accepted
        self._scheduled = False
        self._releasing = False
        self._closed = False
        self._is_held = False
        self._alone = asyncio.Lock()
        self._judging = asyncio.Lock()
        self._drained_at: float | None = None
        self.log_files = LogFiles(store.path, durable=store.durable)
        self._logs = AttemptLogs(store, self.log_files)
        self._awaits_logs = False
        self._next_due: int | None = None
        self._latest = newest_time(store.connection)  # that the clock is known to have shown
        self._set_back_ms = 0  # by which it was set back, and stored times are not moved yet
        self._timer: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None

    # --- what others ask for ---------------------------------------------------------------------------------------

    def send(self, events: Sequence[Event]) -> Awaitable[None]:
        """Accept events: they are durable when this has been awaited. Raises Unavailable, and BadRequest if types of
        events refuse some."""
        return self._send_judged(events) if self.store.types.current().has_any else self._put(events)

    def sender(self) -> Callable[[Sequence[Event]], asyncio.Future[None]] | None:
        """`send` of events that no types can refuse; None while there are types, or a policy for events without."""
        return None if self.store.types.current().has_any else self._put

    async def _send_judged(self, events: Sequence[Event]) -> None:
        if errors := await self.judge(enumerate(events)):
            raise BadRequest(400, errors)
        await self._put(events)

    def _put(self, events: Sequence[Event]) -> asyncio.Future[None]:
        self._backlog.requests.add([[IncomingEvent(event) for event in events]])
        return self._durable(self._backlog.requests)

    async def judge(self, events: Iterable[tuple[int, Event]]) -> list[EventError]:
        """What types of events have against some, by their places in a request: where their policy is `reject`, the
        errors, of which functions are told as well; where it is `warn`, the events are marked. Requests are answered
        in between."""
        types = self.store.types.current()
        if not types.has_any:
            return []
        refused, effort, slice_ends = [], Effort(), time.perf_counter() + _SLICE_S
        has_turn = False
        try:
            for one in events:
                refused += types.refused([one], effort=effort)
                if time.perf_counter() > slice_ends:
                    if not has_turn:  # requests that take long are judged one at a time
                        has_turn = await self._judging.acquire()
                    await asyncio.sleep(0)
                    slice_ends = time.perf_counter() + _SLICE_S
        finally:
            if has_turn:
                self._judging.release()
        for _, event, errors in refused[:MOST_TOLD]:
            self._backlog.requests.add([self._engine.refuse(event, errors, self.clock.now())])
            self._schedule()
        return errors_of(refused)

    def tick(self, function_id: str, tick: Event) -> asyncio.Future[None]:
        """Accept a tick of this function's cron trigger now."""
        self._backlog.requests.add([[IncomingEvent(tick, only=function_id)]])
        return self._durable(self._backlog.requests)

    def cancel(self, run_id: str) -> asyncio.Future[None]:
        self._backlog.facts.add([RunFact(run_id, CancelRequested())])
        return self._durable(self._backlog.facts)

    async def decide(self, link: Link, outcome: Outcome) -> bool:
        """End an approval so; False if it was not open any more."""
        is_mine = False

        def call(now: int) -> None:
            nonlocal is_mine
            record = self.store.load([link.run_id]).get(link.run_id)
            if record is not None and standing(record.run, link, now) is Standing.OPEN:
                fact = AttemptEnded(link.step, link.attempt, outcome)
                self._engine.process([], [RunFact(link.run_id, fact)], now)
                is_mine = True

        await self._do(call)
        return is_mine

    async def rerun(self, run_id: str, token: str, restart: Restart | None = None) -> str | None:
        """The new run's id; None if the function is not live any more. Raises KeyError for an unknown run, and
        CannotResume."""
        result: list[str | CannotResume | None] = []

        def call(now: int) -> None:
            record = self.store.load([run_id]).get(run_id)
            try:
                if record is not None:
                    result.append(self._engine.rerun(record, token, now, restart=restart))
            except CannotResume as reason:  # which is no reason for the batch to fail
                result.append(reason)

        await self._do(call)
        if not result:
            raise KeyError(run_id)
        if isinstance(result[0], CannotResume):
            raise result[0]
        return result[0]

    async def replay(
        self, function_id: str, version: int, events: Sequence[str | Event], replay: str
    ) -> list[Replayed] | None:
        """What became of each event; None if there is no such version."""
        result: list[Replayed] | None = None

        def call(now: int) -> None:
            nonlocal result
            plan = self.store.functions.use(function_id, version)
            if plan is not None:
                result = self._engine.replay(plan, events, replay, now)

        await self._do(call)
        return result

    async def register(
        self,
        definition: dict[str, Any],
        code: Mapping[str, str],
        dotenv: Mapping[str, Mapping[str, str]],
        file: str,
        release: Release | None = None,
    ) -> Registered:
        """Make and release a version; its step code must lie in `self.code` already. Raises NotPossible."""
        functions = self.store.functions
        registered = await self._try(lambda now: functions.register(definition, code, dotenv, file, now, release))
        self._release()
        return registered

    async def change_routing(self, function_id: str, change: versions.Change) -> Routing:
        """Raises KeyError, NotPossible."""
        changed = await self._try(lambda now: self.store.functions.change(function_id, change, now))
        self._release()
        return changed

    async def retire(self, function_ids: Sequence[str]) -> None:
        await self._try(lambda now: self.store.functions.retire(function_ids, now))

    async def cancel_runs(self, function_id: str) -> None:
        """Cancel all open runs of a function."""

        def call(now: int) -> None:
            sql = "SELECT id FROM runs WHERE function = ? AND status = 0"
            ids = [run_id for (run_id,) in self.store.connection.execute(sql, (function_id,))]
            self._backlog.facts.add(RunFact(run_id, CancelRequested()) for run_id in ids)

        await self._do(call)
        await self._durable(self._backlog.facts)

    async def _try(self, do: Callable[[int], T]) -> T:
        """Change functions as part of a batch. What is not possible is raised here, and leaves the batch alone."""
        result: list[T] = []
        refused: list[NotPossible | KeyError] = []

        def call(now: int) -> None:
            try:
                result.append(do(now))
            except (NotPossible, KeyError) as reason:
                refused.append(reason)
            self.store.timers.changed = True  # of cron triggers, of guards

        await self._do(call)
        if refused:
            raise refused[0]
        return result[0]

    def _release(self) -> None:
        """Route the events that were kept for functions that are not paused any more, some with every batch."""
        self._releasing = True
        self._schedule()

    async def register_types(self, types: Sequence[TypeVersion], *, dry_run: bool = False) -> list[Change]:
        """Register versions of types of events, all or none. Raises event_types.types.Refused."""
        same = [self.store.types.unchanged(version) for version in types]
        if all(same):
            return [change for change in same if change is not None]
        checked = [(version, await asyncio.to_thread(check_type, version)) for version in types]
        result: list[list[Change] | Refused] = []

        def call(now: int) -> None:
            try:
                result.append(self.store.types.register(checked, now, dry_run=dry_run))
            except Refused as refused:  # nothing is written then, and nobody else's batch is lost
                result.append(refused)

        await self._do(call)
        if isinstance(result[-1], Refused):
            raise result[-1]
        return result[-1]

    async def in_transaction(self, call: Callable[[sqlite3.Connection, int], None]) -> None:
        """Run housekeeping, such as retention, as part of a batch."""
        await self._do(lambda now: call(self.store.connection, now))

    async def alone(self, work: Callable[[], T]) -> T:
        """Do work on the database in a thread while no batch is written: what comes waits for it."""
        async with self._alone:
            self._is_held = True
            try:
                await self._between_batches()
                return await asyncio.to_thread(work)
            finally:
                self._is_held = False
                self._schedule()

    # --- life ------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Go on where the last process stopped: attempts that ran then are lost, queued ones are queued again."""
        self.log_files.remove_orphans()
        active = self.store.active()
        for start in range(0, len(active), _RECOVER_AT_ONCE):
            await self._between_batches()
            self._recover(active[start : start + _RECOVER_AT_ONCE])
            await asyncio.sleep(0)
        self._release()

    async def prepare(self) -> None:
        """Do what the next events would else have to wait for; requests are answered in between."""
        slice_ends = time.perf_counter() + _SLICE_S
        for _ in self.store.prepare():
            if time.perf_counter() > slice_ends:
                await asyncio.sleep(0)
                slice_ends = time.perf_counter() + _SLICE_S

    def _recover(self, run_ids: Sequence[str]) -> None:
        running = self.executor.running
        for run_id, record in self.store.load(run_ids).items():
            for i, state in enumerate(record.run.steps):
                if state.status is StepStatus.QUEUED:
                    self.executor.queue(record, i, state.attempt, calls=record.plan.steps[i].calls)
                elif record.plan.steps[i].is_approval:
                    continue  # nothing ran of it, and its time goes on
                elif state.status is StepStatus.RUNNING and (run_id, i, state.attempt) not in running:
                    self._backlog.facts.add([RunFact(run_id, AttemptLost(i, state.attempt))])
        self._schedule()

    def drain(self) -> None:
        """Stop starting attempts: the time that those which run have to end begins."""
        self.executor.pause()
        if self._drained_at is None:
            self._drained_at = self._loop.time()

    async def close(self, grace_s: float = 0.0) -> None:
        """Drain; give what runs `grace_s` to end since it began, then queue it again as lost. Whatever goes wrong with
        that, nothing runs on: what is not written now is found lost at the next start."""
        self.drain()
        try:
            await self._let_end(grace_s)
        except Unavailable as reason:
            log.error("the end of what ran could not be written: %s", reason)
        finally:
            self._closed = True
            for handle in (self._timer, self._retry):
                if handle is not None:
                    handle.cancel()
            await self.executor.close()
            await self.log_files.close()
            self.store.close()

    async def _let_end(self, grace_s: float) -> None:
        assert self._drained_at is not None
        deadline = self._drained_at + grace_s
        while self.executor.running and self._loop.time() < deadline:
            await asyncio.sleep(0.02)
        self._backlog.facts.add(RunFact(run_id, AttemptLost(step, n)) for run_id, step, n in self.executor.running)
        if self._backlog or self._batch is not None or self.store.has_logs:
            for line in (self._backlog.requests, self._backlog.calls, self._backlog.facts):
                await self._durable(line)

    # --- virtual time ----------------------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Nothing runs, is queued, pending or due: only an event or a later timer can move things on."""
        overdue = self._next_due is not None and self._next_due <= self.clock.now()
        pending = self._scheduled or self._has_more or self.store.unrouted or self._batch is not None
        return self.executor.is_idle and not (pending or overdue)

    @property
    def next_due(self) -> int | None:
        """When the next timer or cron tick is due."""
        return self._next_due

    async def until_idle(self) -> None:
        while not self.is_idle:
            await asyncio.sleep(0.001)

    async def travel(self, ms: int) -> None:
        """Move the clock forward; every timer on the way fires at its own time, and what it starts ends before that
        time goes on."""
        target = self.clock.now() + ms
        await self.until_idle()
        while self._next_due is not None and self._next_due <= target:
            self.clock.advance(max(0, self._next_due - self.clock.now()))
            self._schedule()
            await self.until_idle()
        self.clock.advance(max(0, target - self.clock.now()))
        self._schedule()
        await self.until_idle()

    # --- what attempts say -----------------------------------------------------------------------------------------

    def attempt_ended(self, attempt: AttemptId, outcome: Outcome) -> None:
        run_id, step, number = attempt
        self._backlog.facts.add([RunFact(run_id, AttemptEnded(step, number, outcome))])
        self._schedule()

    def attempt_logged(self, attempt: AttemptId, stream: str, text: bytes) -> None:
        if self._closed:
            return
        if not self._awaits_logs:
            self._awaits_logs = True
            self._loop.call_later(_LOG_DELAY_S, self._write_logs)
        self._logs.add(attempt, self.clock.now(), stream, text)

    def when_logged(self, attempt: AttemptId, then: Callable[[], None]) -> None:
        self._logs.finish(attempt, then)

    def _write_logs(self) -> None:
        self._awaits_logs = False
        if self.store.has_logs:
            self._schedule()

    # --- the batch -------------------------------------------------------------------------------------------------

    def _durable(self, line: Line[Any]) -> asyncio.Future[None]:
        """Done when all that stands in this line is."""
        future: asyncio.Future[None] = self._loop.create_future()
        line.wait(future)
        self._schedule()
        return future

    def _do(self, call: Call) -> asyncio.Future[None]:
        """Work that is a part of a batch."""
        self._backlog.calls.add([call])
        return self._durable(self._backlog.calls)

    @property
    def _has_more(self) -> bool:
        """Whether there is work for another batch."""
        is_left = self.store.unrouted and not self._is_wary
        return bool(self._backlog or self._releasing or is_left or self.executor.can_take)

    def _schedule(self) -> None:
        if not self._scheduled and not self._closed:
            self._scheduled = True
            self._loop.call_soon(self._drain)

    async def _between_batches(self) -> None:
        while self._batch is not None:
            await asyncio.sleep(0)

    def _drain(self) -> None:
        """Write a batch, or go on with it: what takes longer than a slice lets requests be answered in between."""
        self._scheduled = False
        if self._closed or (self._is_held and self._batch is None):
            return
        try:
            if self._batch is None:
                self._begin()
            slice_ends = time.perf_counter() + _SLICE_S
            for _ in self._steps:
                if time.perf_counter() > slice_ends:
                    self._schedule()
                    return
            self.store.flush()
        except Exception as error:
            self._roll_back(error)
            return
        batch, self._batch = self._batch, None
        assert batch is not None
        self._set_back_ms -= batch.set_back_ms
        for future in self._backlog.reached():
            if not future.done():
                future.set_result(None)
        self.executor.launch()
        if self.store.timers.changed:
            self._set_timer(self.store.timers.next_due(), batch.now)
        if self._has_more:
            self._schedule()

    def _begin(self) -> None:
        settings, now = self._settings, self._look_at_clock()
        pace = BatchPace(self.store.unrouted, _AT_ONCE, settings.batch_facts, settings.batch_s)
        calls, arrivals = self._backlog.calls.take(_MOST_CALLS), self._take_arrivals()
        self._until_large = _BETWEEN_LARGE if len(arrivals) > _LARGE else self._until_large - 1
        self.batches += 1
        batch = self._batch = _Batch(now, self._set_back_ms, pace, calls, arrivals)
        self._steps = self._steps_of(batch)
        self.store.begin()

    def _take_arrivals(self) -> list[IncomingEvent]:
        """The next requests' events; no large request yet, if runs have not got on since the last."""
        is_early = self._until_large > 0 and (self._backlog.facts or self.store.unrouted)
        return self._backlog.take_arrivals(_AT_ONCE, _LARGE if is_early else math.inf)

    def _steps_of(self, batch: _Batch) -> Iterator[None]:
        if batch.set_back_ms:
            yield from self.store.move_back(batch.set_back_ms, batch.now)
        for call in batch.calls:
            call(batch.now)
            yield
        ticks, facts = self._due(batch.now)
        yield from self._go_on(batch, facts)
        yield from self._start(batch, [*ticks, *batch.arrivals])
        self.store.write()
        yield

    def _go_on(self, batch: _Batch, facts: list[RunFact]) -> Iterator[None]:
        """Runs that have begun come first: what came for them, then those that queue for slots."""
        steps, now, pace = self._engine.steps, batch.now, batch.pace
        while (taken := self._backlog.facts.take(_AT_ONCE)) or facts:
            batch.facts.extend(taken)
            yield from steps([], taken + facts, now, pace)
            facts = []
            if pace.is_over:
                break
        while self.executor.can_take:
            claims = self.executor.take_queued(_AT_ONCE)
            started = [RunFact(run_id, AttemptStarted(step, number)) for run_id, step, number in claims]
            yield from steps([], started, now, pace)
            if pace.is_over:
                break

    def _start(self, batch: _Batch, arrivals: list[IncomingEvent]) -> Iterator[None]:
        """Then events start others, and wake those that wait: new events, those that were kept while a function was
        paused, and those that earlier batches have left. A piece of each at least, so that all get on."""
        steps, now, pace = self._engine.steps, batch.now, batch.pace
        while arrivals:
            yield from steps(arrivals, [], now, pace)
            arrivals = [] if pace.is_over else self._take_arrivals()
        while self._releasing:
            yield from steps([], self._released(now), now, pace)
            if pace.is_over:
                break
        while self.store.unrouted and not self._is_wary:
            pace.grant()
            yield from steps([], [], now, pace, self.store.unrouted.take(_AT_ONCE))
            if pace.is_over or self.executor.has_queued:  # whatever starts would only queue, too
                break

    def _due(self, now: int) -> tuple[list[IncomingEvent], list[RunFact]]:
        """What is time for."""
        if self._next_due is None or self._next_due > now:
            return [], []
        facts = [RunFact(run_id, timer.fact()) for run_id, timer in self.store.timers.take_due(now)]
        functions = self.store.functions
        ticks = [IncomingEvent(event_from(tick), only=name) for name, tick in functions.schedules.take_ticks(now)]
        return [*ticks, *(IncomingEvent(event) for event in functions.guard(now))], facts

    def _released(self, now: int) -> list[RunFact]:
        """What was kept is taken and started in one transaction."""
        functions = self.store.functions
        for function_id in functions.having_kept():
            if ids := functions.take_kept(function_id, _AT_ONCE):
                events = self.store.events(ids)
                return self._engine.release(function_id, [events[name] for name in ids if name in events], None, now)
        self._releasing = False
        return []

    def _roll_back(self, error: Exception) -> None:
        """Nothing of the batch happened: senders are told so, facts are kept for another try."""
        log.error(
            "a batch could not be written, trying again in %s s: %s", self._settings.retry_s, error, exc_info=error
        )
        batch, self._batch = self._batch, None
        self.store.rollback()
        self.executor.discard_batch()
        for future in self._backlog.reached():
            if not future.done():
                future.set_exception(Unavailable(f"not accepted, try again: {error}"))
        if batch is not None:
            self._backlog.facts.give_back(batch.facts)
        self._releasing = self._is_wary = True
        self._retry = self._retry or self._loop.call_later(self._settings.retry_s, self._try_again)

    def _try_again(self) -> None:
        self._retry, self._is_wary = None, False
        if self._batch is not None:  # what it has claimed is not running yet, and not lost
            self._retry = self._loop.call_later(_SLICE_S, self._try_again)
            return
        try:
            self._recover(self.store.active())
        except sqlite3.Error as error:
            log.error("the database cannot be read, trying again in %s s: %s", self._settings.retry_s, error)
            self._retry = self._loop.call_later(self._settings.retry_s, self._try_again)

    def _set_timer(self, due: int | None, now: int) -> None:
        self._next_due = due
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due is not None:
            delay_s = min(max(0, due - now) / 1000, self._settings.look_again_s)
            self._timer = self._loop.call_later(delay_s, self._timer_fired)

    def _timer_fired(self) -> None:
        now = self._look_at_clock()
        if self._set_back_ms or self._next_due is None or self._next_due <= now:
            self.store.timers.changed = True
            self._schedule()
        else:
            self._set_timer(self._next_due, now)

    def _look_at_clock(self) -> int:
        """The time, which never goes back by less than what is noticed as a clock that was set back: the times of rows
        grow with their numbers, and lists rely on that."""
        now = self.clock.now()
        if now < self._latest - TOLERANCE_MS:
            self._set_back_ms += self._latest - now
            log.warning(
                "the clock was set back by %.0f s; timers that were set while it was ahead move back with it",
                (self._latest - now) / 1000,
            )
            self._latest = now
        self._latest = max(self._latest, now)
        return self._latest

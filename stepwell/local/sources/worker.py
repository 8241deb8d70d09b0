"""Reads one source: polls records, accepts their events, and commits only then.

Records that make no event are put in the quarantine in the same step, so they never hold up the others. While events
are being accepted, the next records are read, so at most two batches are in memory.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from stepwell.core.events.events import Event
from stepwell.core.events.request import BadRequest
from stepwell.core.sources.places import Place
from stepwell.core.sources.records import Record
from stepwell.core.sources.settings import resolved, without_secrets
from stepwell.core.sources.source import Kind, NoEvent, SourceRule
from stepwell.local.engine.batch_loop import Unavailable
from stepwell.local.engine.platform import LocalPlatform
from stepwell.local.sources.celery_calls import CeleryCalls
from stepwell.local.sources.lag import Lag
from stepwell.local.sources.reader import CannotSeek, Polled, Reader, ReaderSettings
from stepwell.local.sources.readers import make_reader
from stepwell.local.sources.status import State, Status
from stepwell.local.sources.store import Replay, StoredSource, put_in_quarantine
from stepwell.local.sources.thread import CallThread

log = logging.getLogger("stepwell.sources")

DEFAULT_BATCH = 500
_WAIT_S = 0.5  # how long one poll waits for records
_LAG_S = 5.0  # between two looks at the lag
_FIRST_RETRY_S, _LAST_RETRY_S = 1.0, 60.0
_MOST_BYTES = 4 * 1024 * 1024  # of the records of a batch, about; as of a request with events
_ACCEPT_AGAIN_S = 1.0  # after the database could not be written
_STOP_S = 1.0  # how long the acceptance of records may take when the source is stopped
_CLOSE_S = 2.0  # how long a reader may take to close

T = TypeVar("T")


@dataclass(slots=True)
class Made:
    """What some records make. `sources` has the record of each event."""

    polled: Polled
    events: list[Event] = field(default_factory=list)
    sources: list[Record] = field(default_factory=list)
    refused: list[tuple[Record, NoEvent]] = field(default_factory=list)


class Worker:
    """Runs until it is stopped. Call it on the event loop's thread."""

    def __init__(
        self,
        source: StoredSource,
        platform: LocalPlatform,
        secret: Callable[[str], str | None],
        status: Status | None = None,
        calls: CeleryCalls | None = None,
    ) -> None:
        """`calls`: notes the callers that wait for results, for sources of the type celery."""
        self.source, self.status = source, status or Status()
        self._platform, self._secret, self._calls = platform, secret, calls
        self._rule = SourceRule.of(source.definition)
        self._most: int = source.definition.get("batch", DEFAULT_BATCH)
        self._now_most = self._most  # fewer while records are large
        self._reader: Reader | None = None
        self._thread = CallThread(f"source {source.name}")
        self._task: asyncio.Task[None] | None = None
        self._lag_due = 0.0
        self._failures = 0
        self._is_stopping = False

    def start(self) -> None:
        self.status.state, self.status.error, self.status.next_try_at = State.STARTING, "", None
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stops reading, after the records that were polled are committed.

        Records whose acceptance takes too long are delivered again later."""
        self._is_stopping = True
        if self._task is not None:
            if self.status.state is State.RUNNING:
                await asyncio.wait([self._task], timeout=_STOP_S)
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._close_reader()
        self._thread.end()

    async def replay(self, place: Place, begin: Callable[[Any], Awaitable[None]]) -> None:
        """Lets the broker deliver records again from a place. `begin` stores the present position before.

        The worker must not be started. Raises CannotSeek, and the errors of the broker."""
        try:
            reader = await self._opened()
            await begin(await self._call(reader.position))
            await self._call(partial(reader.seek, place))
        except (CannotSeek, Unavailable):
            raise
        except Exception as error:
            raise CannotSeek(self._masked(error)) from None
        finally:
            await self._close_reader()
            self._thread.end()

    # --- the loop --------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while not self._is_stopping:
            try:
                await self._read(await self._opened())
            except Exception as error:
                wait_s = self._failed(error)
                await self._close_reader()
                await asyncio.sleep(wait_s)

    async def _opened(self) -> Reader:
        settings = resolved(self.source.definition, self._secret)
        kind, identity = self.source.definition["type"], self.source.identity
        reader = await self._call(lambda: make_reader(kind, ReaderSettings(self.source.name, settings, identity)))
        self._reader = reader
        await self._call(reader.open)
        return reader

    async def _read(self, reader: Reader) -> None:
        while not self._is_stopping:
            made = await self._call(partial(self._take, reader, _WAIT_S))
            self._succeeded()
            committing: tuple[asyncio.Future[None], Made] | None = None
            while not made.polled.is_empty:
                ahead = None if self._is_stopping else self._call(partial(self._take, reader, 0.0))
                await self._accept(made)
                await self._committed(committing)
                committing = self._call(partial(reader.commit, made.polled)), made
                if ahead is None:
                    break
                made = await ahead
                await self._look_at_lag(reader, made)
            await self._committed(committing)
            if not self._is_stopping:
                await self._look_at_lag(reader, made)

    async def _committed(self, committing: tuple[asyncio.Future[None], Made] | None) -> None:
        if committing is not None:
            done, made = committing
            await done
            self._count(made)

    def _take(self, reader: Reader, wait_s: float) -> Made:
        """The next records and their events. Called in the thread."""
        made = Made(reader.poll(self._now_most, wait_s))
        size = sum(len(record.body or b"") for record in made.polled.records)
        fitting = _MOST_BYTES * len(made.polled.records) // max(1, size)
        self._now_most = max(1, min(self._most, fitting)) if size else self._most
        now, replay = self._platform.clock.now(), self.source.replay
        for record in made.polled.records:
            try:
                event = self._rule.event_of(record, now, _token(reader, record, replay))
            except NoEvent as reason:
                made.refused.append((record, reason))
                continue
            if event is not None:
                made.events.append(event)
                made.sources.append(record)
        return made

    async def _accept(self, made: Made) -> None:
        """Returns when the events and the quarantined records are durable."""
        while True:
            try:
                await self._send(made)
                if made.refused:
                    await self._quarantine(made.refused)
                if self._calls is not None:
                    events = zip(made.events, made.sources, strict=True)
                    await self._calls.accepted(self.source.definition, made.polled, events, made.refused)
                return
            except Unavailable as reason:
                log.warning("source %s: %s", self.source.name, reason)
                await asyncio.sleep(_ACCEPT_AGAIN_S)

    async def _send(self, made: Made) -> None:
        made.refused += await send_events(self._platform, made.events, made.sources)

    async def _quarantine(self, refused: Sequence[tuple[Record, NoEvent]]) -> None:
        name = self.source.name
        await self._platform.in_transaction(lambda connection, now: put_in_quarantine(connection, name, refused, now))
        record, reason = refused[0]
        words = "source %s: %s made no event and are in quarantine; the first is %s: %s"
        log.warning(words, name, f"{len(refused)} records", record.id, reason)

    # --- status ----------------------------------------------------------------------------------------------------

    def _succeeded(self) -> None:
        if self.status.state is not State.RUNNING:
            if self.status.state is State.FAILING:
                log.info("source %s reads again", self.source.name)
            self.status.state, self.status.error, self.status.next_try_at = State.RUNNING, "", None
        self._failures = 0

    def _failed(self, error: Exception) -> float:
        """Notes the error. Returns the seconds until the next try."""
        wait_s = min(_FIRST_RETRY_S * 2.0**self._failures, _LAST_RETRY_S) * random.uniform(0.8, 1.0)
        self._failures = min(self._failures + 1, 10)
        reason = self._masked(error)
        if reason != self.status.error:
            log.error("source %s cannot read, and tries again: %s", self.source.name, reason)
        self.status.state, self.status.error, self.status.lag = State.FAILING, reason, Lag()
        self._lag_due = 0.0
        self.status.next_try_at = self._platform.clock.now() + round(wait_s * 1000)
        return wait_s

    def _masked(self, error: Exception) -> str:
        """The reason of an error in one line, without the values of secrets."""
        text = " ".join(str(error).split())[:500] or type(error).__name__
        return without_secrets(text, self.source.definition, self._secret)

    def _count(self, made: Made) -> None:
        status, records = self.status, made.polled.records
        status.records += len(records)
        status.events += len(made.events)
        status.last_read_at = self._platform.clock.now()
        if records:
            status.last_record_at = records[-1].at or status.last_record_at

    async def _look_at_lag(self, reader: Reader, waiting: Made) -> None:
        """Updates the lag now and then. `waiting`: what was polled, and is not accepted yet."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._lag_due:
            return
        self._lag_due = loop.time() + _LAG_S
        lag = await self._call(reader.lag)
        self.status.lag = lag.with_waiting(waiting.polled.records, self._platform.clock.now())

    # --- the reader ------------------------------------------------------------------------------------------------

    def _call(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return self._thread.call(work)

    async def _close_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is None:
            return
        try:
            await asyncio.wait_for(self._call(reader.close), _CLOSE_S)
        except Exception as error:  # a broken connection; a new one is made
            if isinstance(error, TimeoutError):
                self._thread.end()
                self._thread = CallThread(f"source {self.source.name}")


async def send_events(
    platform: LocalPlatform, events: list[Event], records: list[Record]
) -> list[tuple[Record, NoEvent]]:
    """Accepts events, which are then durable, and returns the records whose events are refused by their types.

    Removes these from both lists. Raises Unavailable."""
    if not events:
        return []
    try:
        await platform.send(events)
        return []
    except BadRequest as bad:
        reasons = {error.index: error for error in reversed(bad.errors)}
    refused = []
    for index in sorted(reasons, reverse=True):
        error = reasons[index]
        refused.append((records[index], NoEvent(Kind.REFUSED, f"{error.pointer} {error.message}".strip())))
        del events[index], records[index]
    return [*reversed(refused), *await send_events(platform, events, records)]


def _token(reader: Reader, record: Record, replay: Replay | None) -> str:
    return replay.token if replay is not None and reader.is_before(record, replay.until) else ""

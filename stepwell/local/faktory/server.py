"""The Faktory server of a local server: listens for clients and workers, and answers their commands.

FETCH claims a queued attempt, ACK and FAIL end it, and PUSH makes an event. Nothing is acknowledged before it is
durable. https://github.com/contribsys/faktory/blob/main/docs/protocol-specification.md
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson

from stepwell.core.events.events import Event
from stepwell.core.events.request import BadRequest, EventError
from stepwell.local.engine.batch_loop import Unavailable
from stepwell.local.engine.platform import LocalPlatform
from stepwell.local.faktory import wire
from stepwell.local.faktory.commands import Ack, BadCommand, Beat, Command, Fail, Fetch, Info, Push, Queue
from stepwell.local.faktory.connection import Connection
from stepwell.local.faktory.counters import Counters
from stepwell.local.faktory.jobs import Jobs
from stepwell.local.faktory.later import LaterJobs
from stepwell.local.faktory.passwords import Challenge, Challenges
from stepwell.local.faktory.pushed_jobs import read_jobs
from stepwell.local.faktory.workers import Worker, Workers

_SWEEP_S = 1.0
_AT_ONCE = 16 * 1024  # bytes; longer commands are read in a thread, so that the event loop is not blocked


class FaktoryServer:
    """Implements `connection.Host`."""

    def __init__(self, platform: LocalPlatform, jobs: Jobs, later: LaterJobs, password: str) -> None:
        """`password`: empty if clients need none."""
        loop = asyncio.get_running_loop()
        self._platform, self._jobs, self._later = platform, jobs, later
        self._challenges = Challenges(password, loop.time) if password else None
        self.connections: set[Any] = set()
        self.workers = Workers(platform.clock.now)
        self.counters = Counters(loop.time)
        self._answers: dict[type, Callable[[Connection, Any], Awaitable[bytes]]] = {
            Push: self._push,
            Fetch: self._fetch,
            Ack: self._ack,
            Fail: self._fail,
            Beat: self._beat,
            Info: self._info,
            Queue: self._queue,
        }

    # --- connections -----------------------------------------------------------------------------------------------

    def challenge(self) -> Challenge | None:
        return None if self._challenges is None else self._challenges.current()

    def opened(self, client: Connection) -> None:
        assert client.session.hello is not None
        client.worker = self.workers.connected(client.session.hello)

    def closed(self, client: Connection) -> None:
        if client.worker is not None:
            self.workers.disconnected(client.worker)

    async def answer(self, client: Connection, command: Command) -> bytes:
        self.counters.commands += 1
        try:
            return await self._answers[type(command)](client, command)
        except BadCommand as reason:
            return wire.error(str(reason), reason.code)
        except Unavailable as reason:
            return wire.error(str(reason))

    # --- commands --------------------------------------------------------------------------------------------------

    async def _push(self, client: Connection, push: Push) -> bytes:
        now = self._platform.clock.now()
        is_large = len(push.text) > _AT_ONCE
        jobs = await asyncio.to_thread(read_jobs, push, now) if is_large else read_jobs(push, now)
        refused = dict(jobs.refused)
        refused |= await self._accept(jobs.events, is_bulk=push.is_bulk)
        if jobs.later:
            await self._later.add(jobs.later)
        return wire.bulk(orjson.dumps(refused)) if push.is_bulk else wire.OK

    async def _accept(self, events: Sequence[Event], *, is_bulk: bool) -> Mapping[str, str]:
        """Accepts the events of jobs. Returns the jobs that event types refuse: messages by `jid`."""
        refused: dict[str, str] = {}
        if is_bulk and events:
            for error in await self._platform.intake.judge(enumerate(events)):
                refused.setdefault(events[error.index].data["jid"], _text_of(error))
            events = [event for event in events if event.data["jid"] not in refused]
        if events:
            try:
                await self._platform.send(events)
            except BadRequest as bad:
                raise BadCommand("; ".join(map(_text_of, bad.errors[:5]))) from None
        return refused

    async def _fetch(self, client: Connection, fetch: Fetch) -> bytes:
        worker: Worker = client.worker
        worker.queues = fetch.queues
        job = await self._jobs.fetch(() if worker.order else fetch.queues, lambda: client.is_open)
        return wire.NOTHING if job is None else wire.bulk(job)

    async def _ack(self, client: Connection, ack: Ack) -> bytes:
        await self._jobs.complete(ack.jid)
        self.counters.processed += 1
        return wire.OK

    async def _fail(self, client: Connection, fail: Fail) -> bytes:
        await self._jobs.fail(fail)
        self.counters.processed += 1
        self.counters.failed += 1
        return wire.OK

    async def _beat(self, client: Connection, beat: Beat) -> bytes:
        order = self.workers.beat(client.worker, beat)
        return wire.bulk(orjson.dumps({"state": order})) if order else wire.OK

    async def _info(self, client: Connection, info: Info) -> bytes:
        sizes = self._platform.executor.worker_queues.sizes()
        return wire.bulk(self.counters.info(self._platform.clock.now(), len(self.connections), sizes))

    async def _queue(self, client: Connection, queue: Queue) -> bytes:
        await self._jobs.pauses.change(queue)
        return wire.OK

    # --- start and end ---------------------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """Closes connections of clients that are too slow, until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = loop.time()
            for connection in list(self.connections):
                connection.sweep(now)

    async def close(self) -> None:
        """Closes all connections. Jobs that were claimed for them and not sent are given back."""
        answering = [connection.answering for connection in self.connections if connection.answering is not None]
        for connection in list(self.connections):
            connection.give_way()
        await asyncio.wait(answering) if answering else None


def _text_of(error: EventError) -> str:
    return f"{error.pointer}: {error.message}"

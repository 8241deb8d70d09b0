"""Starts, pauses and stops the sources of a server, and changes them.

What reads sources is imported when there is a source: most servers have none, and start faster so.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from stepwell.local.engine.platform import LocalPlatform
from stepwell.local.sources import store
from stepwell.local.sources.lag import Lag
from stepwell.local.sources.status import State, Status
from stepwell.local.sources.store import Json, Replay, StoredSource
from stepwell.local.webhooks import Synchronised

if TYPE_CHECKING:
    from stepwell.local.sources.celery_calls import CeleryCalls
    from stepwell.local.sources.worker import Worker


class LocalSources:
    """The sources of a server. Call it on the event loop's thread."""

    def __init__(self, platform: LocalPlatform, secret: Callable[[str], str | None]) -> None:
        self._platform, self._secret = platform, secret
        self._workers: dict[str, Worker] = {}
        self._status: dict[str, Status] = {}  # by name; counts stay when a source is paused or changed
        self._changes = asyncio.Lock()
        self._is_started = False

    def start(self) -> None:
        """Starts the sources. Call it when functions are in service, so that events start them."""
        self._is_started = True
        sources = store.read_sources(self._platform.store.connection)
        for source in sources:
            self._start(source)
        if sources:
            self._celery_calls.start()

    async def close(self) -> None:
        self._is_started = False
        for name in list(self._workers):
            await self._stop(name)
        if "_celery_calls" in self.__dict__:
            await self._celery_calls.close()

    @cached_property
    def _celery_calls(self) -> CeleryCalls:
        from stepwell.local.sources.celery_calls import CeleryCalls

        return CeleryCalls(self._platform, self._secret)

    def status(self, name: str) -> Status:
        status = self._status.setdefault(name, Status())
        if name not in self._workers:
            status.state, status.lag = State.PAUSED, Lag()
        return status

    # --- definitions -----------------------------------------------------------------------------------------------

    async def put(self, definition: Json, file: str | None = None) -> bool:
        """Stores a source and starts it. Returns whether it differs from the one stored before."""
        before = self._read(definition["name"])
        if before is not None and (before.definition, before.file) == (definition, file):
            return False
        now = self._platform.clock.now()
        new = StoredSource(definition, file, now, False, uuid4().hex[:12], None)

        def change(found: StoredSource | None) -> StoredSource:
            return replace(found or new, definition=definition, file=file, changed_at=now)

        await self._change(definition["name"], change)
        return before is None or before.definition != definition

    async def remove(self, name: str) -> None:
        """Removes a source and its quarantine."""
        await self._change(name, lambda found: None)
        self._status.pop(name, None)

    async def synchronise(self, sources: Iterable[tuple[Json, str]], broken: Collection[str]) -> Synchronised:
        """Stores these sources and their files. Removes other sources that came from files, except from the `broken`
        files, which cannot be read now."""
        changed, names = [], set()
        for definition, file in sources:
            names.add(definition["name"])
            if await self.put(definition, file):
                changed.append(definition["name"])
        stored = store.read_sources(self._platform.store.connection)
        removed = [s.name for s in stored if s.file is not None and s.name not in names and s.file not in broken]
        for name in removed:
            await self.remove(name)
        return Synchronised(changed, removed)

    # --- control ---------------------------------------------------------------------------------------------------

    async def pause(self, name: str) -> None:
        """Stops reading until `resume`, also after a restart."""
        await self._change(name, lambda found: found and replace(found, is_paused=True))

    async def resume(self, name: str) -> None:
        await self._change(name, lambda found: found and replace(found, is_paused=False))

    async def replay(self, name: str, place: str) -> None:
        """Reads records again, from a place in the words of `parse_place`. They make new events.

        Raises ValueError and CannotSeek."""
        from stepwell.core.sources.places import parse_place
        from stepwell.local.sources.worker import Worker

        now = self._platform.clock.now()
        found = parse_place(place, now)
        async with self._changing(name):
            source = self._read(name)
            if source is None:
                return

            async def begin(position: Any) -> None:
                # The broker delivers nothing again before this is durable. So a crash cannot make a replayed record
                # look like a redelivered one.
                changed = replace(source, replay=Replay(f"{now:x}", position))
                await self._platform.in_transaction(lambda connection, _: store.write_source(connection, changed))

            await Worker(source, self._platform, self._secret).replay(found, begin)

    async def retry(self, name: str, numbers: Sequence[int]) -> list[int]:
        """Makes events of quarantined records, by the rule as it is now. Returns the numbers of those that made one.

        The others stay, with the new reason. Raises Unavailable."""
        from stepwell.core.sources.source import NoEvent, SourceRule
        from stepwell.local.sources.worker import send_events

        connection = self._platform.store.connection
        now = self._platform.clock.now()
        if (source := self._read(name)) is None:
            return []
        rule = SourceRule.of(source.definition)
        done = []
        for number in numbers:
            item = store.read_quarantined(connection, name, number)
            if item is None:
                continue
            refused = []
            try:
                event = rule.event_of(item.record, now)
                if event is not None:
                    refused = await send_events(self._platform, [event], [item.record])
            except NoEvent as reason:
                refused = [(item.record, reason)]
            await self._platform.in_transaction(
                lambda c, at, r=refused, n=number: (  # type: ignore[misc]
                    store.put_in_quarantine(c, name, r, at) if r else store.delete_quarantined(c, name, [n])
                )
            )
            if not refused:
                done.append(number)
        return done

    async def discard(self, name: str, numbers: Sequence[int]) -> None:
        """Deletes quarantined records."""
        await self._platform.in_transaction(lambda c, now: store.delete_quarantined(c, name, numbers))

    # --- workers ---------------------------------------------------------------------------------------------------

    async def _change(self, name: str, change: Callable[[StoredSource | None], StoredSource | None]) -> None:
        """Stores what `change` makes of a source, or removes it."""

        def write(connection: sqlite3.Connection, now: int) -> None:
            changed = change(store.read_source(connection, name))
            if changed is None:
                store.delete_source(connection, name)
            else:
                store.write_source(connection, changed)

        async with self._changing(name):
            await self._platform.in_transaction(write)

    @asynccontextmanager
    async def _changing(self, name: str) -> AsyncIterator[None]:
        """Stops a source, and starts it again as it is stored then. One change at a time."""
        async with self._changes:
            await self._stop(name)
            try:
                yield
            finally:
                if (source := self._read(name)) is not None:
                    self._start(source)

    def _start(self, source: StoredSource) -> None:
        if self._is_started and not source.is_paused and source.name not in self._workers:
            from stepwell.local.sources.worker import Worker

            status = self._status.setdefault(source.name, Status())
            calls = self._celery_calls if source.definition["type"] == "celery" else None
            worker = self._workers[source.name] = Worker(source, self._platform, self._secret, status, calls)
            worker.start()

    async def _stop(self, name: str) -> None:
        if (worker := self._workers.pop(name, None)) is not None:
            await worker.stop()

    def _read(self, name: str) -> StoredSource | None:
        return store.read_source(self._platform.store.connection, name)

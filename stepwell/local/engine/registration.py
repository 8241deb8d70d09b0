"""Registers, releases and retires versions of functions and event types, each as part of a batch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from stepwell.core.routing import versions
from stepwell.core.routing.versions import NotPossible, Release, Routing
from stepwell.event_types.changes import check_type
from stepwell.event_types.registry import TypeChange, TypeRefused, TypeVersion
from stepwell.local.engine.batch_loop import BatchLoop
from stepwell.local.store.batch import LocalBatch
from stepwell.local.store.functions import Registered
from stepwell.local.store.store import LocalStore

T = TypeVar("T")


class Registration:
    def __init__(self, store: LocalStore, batches: BatchLoop) -> None:
        self._store, self._batches = store, batches

    async def register(
        self,
        definition: dict[str, Any],
        code: Mapping[str, str],
        dotenv: Mapping[str, Mapping[str, str]],
        file: str,
        release: Release | None = None,
    ) -> Registered:
        """Makes and releases a version. The step code must be in the platform's code folder already. Raises
        NotPossible."""
        registered = await self._change(
            lambda batch: self._store.functions.register(definition, code, dotenv, file, batch.now, release)
        )
        self._batches.release_held_events()
        return registered

    async def change_routing(self, function_id: str, change: versions.RoutingChange) -> Routing:
        """Changes how new runs choose a version. Raises KeyError, NotPossible."""
        changed = await self._change(lambda batch: self._store.functions.change(function_id, change, batch.now))
        self._batches.release_held_events()
        return changed

    async def retire(self, function_ids: Sequence[str]) -> None:
        """Stops starting new runs of these functions."""
        await self._change(lambda batch: self._store.functions.retire(function_ids, batch.now))

    async def set_limits(self, settings: Mapping[str, Mapping[str, int] | None]) -> None:
        """Sets values of limits by id; None: those of the definition apply again. What waits obeys at once."""

        def change(batch: LocalBatch) -> None:
            for limit_id, values in settings.items():
                self._store.limit_values.set(limit_id, values)

        await self._batches.result_of(change)
        self._batches.schedule()

    async def register_types(self, types: Sequence[TypeVersion], *, dry_run: bool = False) -> list[TypeChange]:
        """Registers versions of event types, all or none. Raises TypeRefused."""
        same = [self._store.types.unchanged(version) for version in types]
        if all(same):
            return [change for change in same if change is not None]
        checked = [(version, await asyncio.to_thread(check_type, version)) for version in types]
        return await self._batches.result_of(
            lambda batch: self._store.types.register(checked, batch.now, dry_run=dry_run), TypeRefused
        )

    async def _change(self, work: Callable[[LocalBatch], T]) -> T:
        def change(batch: LocalBatch) -> T:
            self._store.timers.changed = True  # cron ticks and guards may change
            return work(batch)

        return await self._batches.result_of(change, NotPossible, KeyError)

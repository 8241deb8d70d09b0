"""Limits on the local server, as the API reads and sets them from any thread."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping
from heapq import nlargest
from typing import Any

from stepwell.api.v1.limits import KeyUse, LimitUse, UnknownLimit
from stepwell.core.plan import Limit
from stepwell.local.engine.buckets import Bucket
from stepwell.local.engine.platform import LocalPlatform

_MOST_KEYS = 100


class LimitControl:
    """Implements `api.v1.limits.Limits`. `call` runs a coroutine on the platform's event loop and waits."""

    def __init__(self, platform: LocalPlatform, call: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._platform, self._call = platform, call

    def read_limits(self, function: str | None) -> list[LimitUse]:
        uses: list[LimitUse] = self._call(self._read(function))
        return uses

    async def _read(self, function: str | None) -> list[LimitUse]:
        values = self._platform.store.limit_values
        buckets: dict[str, list[Bucket]] = defaultdict(list)
        known = {limit.id: limit for limit in values.of_live_functions()}
        for bucket in self._platform.executor.limits.buckets:
            buckets[bucket.permit.limit.id].append(bucket)
            known.setdefault(bucket.permit.limit.id, bucket.permit.limit)
        prefix = "" if function is None else f"{function}/"
        return [
            self._use(values.current(limit), limit_id in values.settings, buckets[limit_id])
            for limit_id, limit in sorted(known.items())
            if limit_id.startswith(prefix)
        ]

    def _use(self, limit: Limit, is_set: bool, buckets: list[Bucket]) -> LimitUse:
        now = self._platform.clock.now()
        busiest = nlargest(_MOST_KEYS, buckets, key=lambda bucket: (bucket.waiting, len(bucket.holders)))
        return LimitUse(limit, is_set, [_key_use(bucket, now) for bucket in busiest], len(buckets))

    def set_limits(self, settings: Mapping[str, Mapping[str, int] | None]) -> None:
        self._call(self._set(settings))

    async def _set(self, settings: Mapping[str, Mapping[str, int] | None]) -> None:
        known = {use.limit.id for use in await self._read(None)}
        for limit_id in settings:
            if limit_id not in known:
                raise UnknownLimit(limit_id, sorted(known))
        await self._platform.registration.set_limits(settings)


def _key_use(bucket: Bucket, now: int) -> KeyUse:
    room_at = bucket.room_at(now)
    next_at = int(room_at) if bucket.permit.limit.period_ms and room_at is not None and room_at > now else None
    oldest = min((since for lane in bucket.lanes if (since := lane.oldest()) is not None), default=None)
    return KeyUse(bucket.permit.text, len(bucket.holders), bucket.waiting, oldest, next_at)

"""What the checks of starts store in SQLite, written in the batch's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence

import orjson

from stepwell.core.events.events import Event
from stepwell.core.flow.keys import claimed_key
from stepwell.core.plan import Plan
from stepwell.core.routing.idempotency import claimed_value
from stepwell.core.routing.not_started import NotStarted, with_misses
from stepwell.local.store.idempotency import LocalIdempotency
from stepwell.local.store.rate_limits import LocalRateLimits
from stepwell.local.store.singletons import LocalSingletons


class LocalStartChecks:
    """Implements `start_checks.StartChecks`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.idempotency = LocalIdempotency(connection)
        self.rate_limits = LocalRateLimits(connection)
        self.singletons = LocalSingletons(connection)

    def refuse(self, event: Event, not_started: Sequence[NotStarted]) -> None:
        content = orjson.dumps(with_misses(self._stored(event), not_started))
        self._connection.execute("UPDATE events SET misses = ? WHERE seq = ?", (content, event.position))

    def refused(self, event: Event) -> Collection[str]:
        stored = self._stored(event)
        return () if stored is None else {row["function_id"] for row in orjson.loads(stored) if "function_id" in row}

    def forget(self, plan: Plan, event: Event, run_id: str) -> None:
        """Releases what a run of an erased user has claimed: digests of values are stored."""
        if (value := claimed_value(plan.idempotency, event)) is not None:
            self.idempotency.release(plan.function_id, value, run_id)
        if plan.rate_limit is not None and (key := claimed_key(plan.rate_limit.key, event)) is not None:
            self.rate_limits.forget(plan.function_id, key, run_id)
        if plan.singleton is not None and (key := claimed_key(plan.singleton.key, event)) is not None:
            self.singletons.forget(plan.function_id, key, run_id)

    def _stored(self, event: Event) -> bytes | None:
        sql = "SELECT misses FROM events WHERE seq = ?"
        stored: bytes | None = self._connection.execute(sql, (event.position,)).fetchone()[0]
        return stored

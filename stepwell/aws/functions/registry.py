"""A Lambda's cache of functions and versions.

Every change of a function increments a counter (`shared_state`), and a new value of the counter empties the cache.
Lambdas that start runs read the counter every `cache_s` seconds, Lambdas that only continue runs read it every minute.
Changes are made in `releases`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from stepwell.aws.functions.shared_state import SharedState, read_state
from stepwell.aws.functions.versions import Version, Versions, read_version
from stepwell.aws.resources import Resources
from stepwell.aws.table.items import read_item, read_partition
from stepwell.aws.table.keys import function_key
from stepwell.aws.table.routings import read_routing
from stepwell.aws.table.start_items import read_routes
from stepwell.core.plan import Plan, Starts
from stepwell.core.routing.heads import Head
from stepwell.core.routing.triggers import Catalog
from stepwell.core.routing.versions import Route, Routing

_VERSION_AGE_S = 60.0  # the targets of a version may change, for example because of a new base image


@dataclass(frozen=True, slots=True)
class FunctionRow:
    """A function as lists show it. `pending`: the last change was interrupted before it was complete everywhere, and
    must be made again."""

    id: str
    live: int | None
    file: str
    pending: bool = False
    routing: Routing = field(default_factory=lambda: Routing(None))


class Registry:
    """Reads functions and versions, and caches them."""

    def __init__(self, resources: Resources, clock: Callable[[], float] = time.monotonic) -> None:
        self._table, self._cache_s, self._clock = resources.table, resources.cache_s, clock
        self._table_versions = Versions(resources.table)
        self._state = SharedState(-1, {}, {})  # not read yet
        self._read_at = clock()
        self._catalog: Catalog | None = None
        self._versions: dict[tuple[str, int], Version] = {}

    def catalog(self) -> Catalog:
        """The live functions, at most `cache_s` old."""
        self._refresh_if_stale(self._cache_s if self._state.generation >= 0 else 0)
        catalog = self._catalog
        if catalog is None and self._state.has_starts:
            routes = read_routes(self._table)
            catalog = self._catalog = Catalog(routes, self._state.paths, self._plan_of)
        elif catalog is None:
            routes = [self._route_of(row) for row in self.functions() if row.live is not None]
            catalog = self._catalog = Catalog(routes, self._state.paths)
        return catalog

    def _plan_of(self, starts: Starts) -> Plan:
        assert isinstance(starts, Head)
        return self.plan_of(starts.function_id, starts.version)

    def _route_of(self, row: FunctionRow) -> Route:
        assert row.live is not None
        live, canary, state = self.plan_of(row.id, row.live), row.routing.canary, row.routing.state
        if canary is None:
            return Route(live, state=state)
        return Route(live, self.plan_of(row.id, canary.version), canary.weight, canary.sticky, state)

    def expire(self) -> None:
        """Makes the next read check the counter in the table, however recent the last check was."""
        self._read_at = float("-inf")

    def functions(self) -> list[FunctionRow]:
        """All functions, also those that are not live, read from the table."""
        rows, versions = [], self._versions
        for item in read_partition(self._table, "F", ConsistentRead=True):
            routing, function_id = read_routing(item), item["sk"]["S"]
            live = routing.live
            rows.append(FunctionRow(function_id, live, item["file"]["S"], "pending" in item, routing))
            if live is not None and (function_id, live) not in versions:
                versions[function_id, live] = read_version(item, live)
        return rows

    def version(self, function_id: str, number: int) -> Version:
        """A version with the targets that execute it, at most a minute old. Raises KeyError if it does not exist."""
        self._refresh_if_stale(_VERSION_AGE_S)
        return self._known(function_id, number)

    def plan_of(self, function_id: str, number: int) -> Plan:
        """The plan of a version, which never changes. Raises KeyError if the version does not exist."""
        return self._known(function_id, number).plan

    def _known(self, function_id: str, number: int) -> Version:
        versions = self._versions  # a version that is read while another thread empties the cache must not enter it
        found = versions.get((function_id, number))
        if found is None:
            found = versions[function_id, number] = self._table_versions.get(function_id, number)
        return found

    def _refresh_if_stale(self, age_s: float) -> None:
        """Empties the cache if a function has changed, unless the counter was read within the last `age_s` seconds."""
        now = self._clock()
        if now - self._read_at < age_s:
            return
        self._read_at = now
        state = read_state(self._table)
        if state.generation != self._state.generation:
            self._state, self._catalog, self._versions = state, None, {}

    def versions(self, function_id: str) -> list[tuple[int, Version]]:
        """All versions of a function, oldest first."""
        return self._table_versions.all(function_id)

    def longest_wait_ms(self, event_name: str) -> int:
        """How long after acceptance (ms) a wait may need an event of this name; 0 if no function waits for it."""
        return self._state.longest.get(event_name, 0)

    @property
    def wait_shards(self) -> int:
        """Number of partitions for new waits without a key.

        It is 1 until a push by this version of Stepwell, because Lambdas of earlier versions read only the first
        partition.
        """
        return self._state.wait_shards

    def routing(self, function_id: str) -> Routing | None:
        """The current routing of a function, read from the table; None for an unknown function."""
        item = read_item(self._table, function_key(function_id))
        return None if item is None else read_routing(item)

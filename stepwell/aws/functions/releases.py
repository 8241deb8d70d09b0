"""Changes functions: adds versions, changes routings, and completes each change everywhere it matters.

The wait paths of a version are registered before the version goes live (`stage`, then `register`). A change marks the
function as pending until schedules, start items and the change counter are updated. The next change of a pending
function completes the interrupted change first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from stepwell.aws.clients import client
from stepwell.aws.functions.registry import Registry
from stepwell.aws.functions.schedules import Schedules
from stepwell.aws.functions.shared_state import SharedState, change_state
from stepwell.aws.functions.versions import NewVersion, Versions
from stepwell.aws.resources import Resources
from stepwell.aws.table.items import read_item, read_partition
from stepwell.aws.table.keys import EXISTS, SAME_ROUTING, WAIT_SHARDS, Item, function_key, version_key
from stepwell.aws.table.routings import read_routing, routing_attributes
from stepwell.aws.table.start_items import put_starts
from stepwell.core.compile import compile_plan
from stepwell.core.plan import Plan
from stepwell.core.routing.heads import wait_paths
from stepwell.core.routing.versions import NotPossible, Release, Routing, RoutingChange, retired
from stepwell.core.run.max_run_duration import longest_run_ms

AT_ONCE = Release()


@dataclass(frozen=True, slots=True)
class Registered:
    function_id: str
    version: int
    is_new: bool


class Releases:
    """Registers versions and changes routings. `registry`: the cache of this process, which is expired by a change."""

    def __init__(self, resources: Resources, registry: Registry | None = None) -> None:
        self._table, self._registry = resources.table, registry or Registry(resources)
        self._schedules, self._versions = Schedules(resources), Versions(resources.table)

    @property
    def _db(self) -> Any:
        return client("dynamodb")

    def stage(self, definition: Mapping[str, Any]) -> bool:
        """Registers the wait paths of a definition, and how long a run of it may need earlier events.

        Returns whether anything is new. If so, all routers know it `cache_s` later.
        """
        plan = compile_plan(dict(definition), 0)
        wanted, longest = wait_paths(awaits(plan)), longest_run_ms(plan)

        def merge(state: SharedState) -> bool:
            known = deepcopy(state)
            for name, items in wanted.items():
                state.paths.setdefault(name, set()).update(items)
                state.longest[name] = max(longest, state.longest.get(name, 0))
                if None in items:
                    state.wait_shards = WAIT_SHARDS
            return state != known

        is_new = change_state(self._table, merge)
        if is_new:
            self._registry.expire()
        return is_new

    def register(self, new: NewVersion, now: int, release: Release = AT_ONCE) -> Registered:
        """Adds a version, unless it equals the newest one, and releases it. Raises NotPossible."""
        function_id = new.definition["id"]
        release.check()
        number, is_new = self._versions.add(function_id, new.item(now))

        def released(old: Routing | None) -> Routing:
            is_overtaken = old is not None and old.live is not None and old.live > number
            return old if old is not None and is_overtaken else release.of(old, number, now)  # the newest version wins

        self._change_routing(function_id, released, now, new.file)
        return Registered(function_id, number, is_new)

    def change_routing(self, function_id: str, change: RoutingChange, now: int) -> Routing:
        """Applies a change to the routing of a function. Raises KeyError for an unknown function, NotPossible."""

        def checked(old: Routing | None) -> Routing:
            if old is None:
                raise KeyError(function_id)
            numbers, gone = self._versions.numbers(function_id)
            new = change(old, numbers, now)
            canary = None if new.canary is None else new.canary.version
            for number in {new.live, canary} & gone:
                raise NotPossible(f"version {number} was pruned, so nothing can run it; push it again")
            return new

        return self._change_routing(function_id, checked, now)

    def retire(self, function_ids: Sequence[str]) -> None:
        """Makes these functions start no new runs. Open runs go on. Unknown functions are ignored."""
        for function_id in function_ids:
            try:
                self.change_routing(function_id, lambda old, versions, now: retired(old), time.time_ns() // 1_000_000)
            except KeyError:
                continue

    # --- one change, and the updates that complete it --------------------------------------------------------------

    def _change_routing(
        self, function_id: str, change: Callable[[Routing | None], Routing], now: int, file: str | None = None
    ) -> Routing:
        """Changes a routing and completes the change; tries again if another process changes it at the same time.

        An interrupted change is completed first. If it equals the requested change, nothing else is done.
        """
        while True:
            item = read_item(self._table, function_key(function_id)) or {"file": {"S": ""}}
            before = read_routing(item) if "pk" in item else None
            if before is not None and "pending" in item:
                self._complete(function_id, before, now)
                if _is_made(change, item["pending"], before):
                    self._remove_pending(function_id)
                    return before
            after = change(before)
            try:
                self._put_routing(function_id, item, after, before, file)
            except self._db.exceptions.ConditionalCheckFailedException:
                continue
            self._complete(function_id, after, now)
            completed = after
            while (current := self._registry.routing(function_id)) is not None and current != completed:
                self._complete(function_id, current, now)  # a concurrent newer change must be completed last
                completed = current
            self._remove_pending(function_id)
            return after

    def _put_routing(
        self, function_id: str, item: Item, routing: Routing, before: Routing | None, file: str | None
    ) -> None:
        """Writes a function's item: the routing, the content of the live version, and the routing before (`pending`).

        `item`: the item as it was read. Raises ConditionalCheckFailedException if it has changed since.
        """
        version: Item | None = item
        if routing.live is not None:
            version = read_item(self._table, version_key(function_id, routing.live))
        rev = int(item["rev"]["N"]) if "rev" in item else 0
        content = {name: value for name, value in (version or item).items() if name != "live"}
        own: Item = {"file": item["file"] if file is None else {"S": file}, "rev": {"N": str(rev + 1)}}
        own |= {**function_key(function_id), **routing_attributes(routing)}
        own["pending"] = {"M": {} if before is None else routing_attributes(before)}
        self._db.put_item(
            TableName=self._table,
            Item={**content, **own},
            ConditionExpression=SAME_ROUTING,
            ExpressionAttributeValues={":rev": {"N": str(rev)}},
        )

    def _complete(self, function_id: str, routing: Routing, now: int) -> None:
        """Updates everything that depends on a routing: schedules, start items, the change counter."""
        plan = None if routing.live is None else self._registry.plan_of(function_id, routing.live)
        self._schedules.set(function_id, plan, routing.is_paused, routing.is_guarded, now)
        item = read_item(self._table, function_key(function_id))
        if item is not None:
            self._put_starts(item)
        change_state(self._table, lambda state: True, self._put_all_starts)
        self._registry.expire()

    def _put_all_starts(self) -> None:
        for item in read_partition(self._table, "F", ConsistentRead=True):
            self._put_starts(item)

    def _put_starts(self, item: Item) -> None:
        """Writes the start item of a function from the function's item, unless a newer start item exists."""
        routing, function_id = read_routing(item), item["sk"]["S"]
        canary = None if routing.canary is None else routing.canary.version
        numbers = [number for number in (routing.live, canary) if number is not None]
        put_starts(self._table, item, [self._registry.plan_of(function_id, number) for number in numbers])

    def _remove_pending(self, function_id: str) -> None:
        self._db.update_item(
            TableName=self._table,
            Key=function_key(function_id),
            UpdateExpression="REMOVE pending",
            ConditionExpression=EXISTS,
        )


def awaits(plan: Plan | None) -> set[tuple[str, str | None]]:
    """The event names and match expressions for which a version waits.

    If a version waits for more than the live version, `cache_s` must pass between `stage` and `register`, even if
    another process has just staged the same paths.
    """
    return {(pause.event, pause.match) for pause in plan.pauses if pause.event is not None} if plan else set()


def _is_made(change: Callable[[Routing | None], Routing], pending: Item, now: Routing) -> bool:
    """Whether the interrupted change, which led to the routing `now`, has the same result as this change."""
    before = pending.get("M")
    if not before:
        return False
    try:
        return change(read_routing(before)) == now
    except NotPossible:
        return False

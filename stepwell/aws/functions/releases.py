"""Changes of functions: new versions, which of them are live, and what must follow before everybody knows of it.

One rule: wait paths are registered before a version that uses them is live (`stage`, then `register`). A change that
was interrupted leaves its function pending; the next change of the function follows it first.
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
    """`registry`: what this process knows of functions; it learns at once of what is changed here."""

    def __init__(self, resources: Resources, registry: Registry | None = None) -> None:
        self._table, self._registry = resources.table, registry or Registry(resources)
        self._schedules, self._versions = Schedules(resources), Versions(resources.table)

    @property
    def _db(self) -> Any:
        return client("dynamodb")

    def stage(self, definition: Mapping[str, Any]) -> bool:
        """Register the wait paths of a definition, and for how long it may look for events. True if that is new, which
        routers know `cache_s` later."""
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
            self._registry.look_again()
        return is_new

    def register(self, new: NewVersion, now: int, release: Release = AT_ONCE) -> Registered:
        """Make this a version, unless it equals the newest one, and release it. Raises NotPossible."""
        function_id = new.definition["id"]
        release.check()
        number, is_new = self._versions.add(function_id, new.item(now))

        def released(old: Routing | None) -> Routing:
            is_overtaken = old is not None and old.live is not None and old.live > number
            return old if old is not None and is_overtaken else release.of(old, number, now)  # who pushed last is live

        self._change_routing(function_id, released, now, new.file)
        return Registered(function_id, number, is_new)

    def change_routing(self, function_id: str, change: RoutingChange, now: int) -> Routing:
        """Raises KeyError for an unknown function, NotPossible."""

        def checked(old: Routing | None) -> Routing:
            if old is None:
                raise KeyError(function_id)
            numbers, gone = self._versions.numbers(function_id)
            new = change(old, numbers, now)
            canary = None if new.canary is None else new.canary.version
            for number in {new.live, canary} & gone:
                raise NotPossible(f"version {number} was pruned, so that nothing can run it; push it again")
            return new

        return self._change_routing(function_id, checked, now)

    def retire(self, function_ids: Sequence[str]) -> None:
        """Start no new runs of these functions; their open runs go on. Nothing happens to one that is not there."""
        for function_id in function_ids:
            try:
                self.change_routing(function_id, lambda old, versions, now: retired(old), time.time_ns() // 1_000_000)
            except KeyError:
                continue

    # --- a change, and what follows --------------------------------------------------------------------------------

    def _change_routing(
        self, function_id: str, change: Callable[[Routing | None], Routing], now: int, file: str | None = None
    ) -> Routing:
        """Against whoever changes it at the same time; the item of a function holds its live version, too. A change
        that was interrupted is followed, and not made again if that is what is asked for."""
        while True:
            item = read_item(self._table, function_key(function_id)) or {"file": {"S": ""}}
            before = read_routing(item) if "pk" in item else None
            if before is not None and "pending" in item:
                self._follow(function_id, before, now)
                if _is_made(change, item["pending"], before):
                    self._settle(function_id)
                    return before
            after = change(before)
            try:
                self._put_routing(function_id, item, after, before, file)
            except self._db.exceptions.ConditionalCheckFailedException:
                continue
            self._follow(function_id, after, now)
            known = after
            while (current := self._registry.routing(function_id)) is not None and current != known:
                self._follow(function_id, current, now)  # else ours might be followed after that of somebody as fast
                known = current
            self._settle(function_id)
            return after

    def _put_routing(
        self, function_id: str, item: Item, routing: Routing, before: Routing | None, file: str | None
    ) -> None:
        """Write a function's item, that was read as `item`, with all that its live version says, and what was before
        it."""
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

    def _follow(self, function_id: str, routing: Routing, now: int) -> None:
        """Let everybody, and everything, know of a routing. Until that is settled, the function is pending."""
        plan = None if routing.live is None else self._registry.plan_of(function_id, routing.live)
        self._schedules.set(function_id, plan, routing.is_paused, routing.is_guarded, now)
        item = read_item(self._table, function_key(function_id))
        if item is not None:
            self._put_starts(item)
        change_state(self._table, lambda state: True, self._put_all_starts)
        self._registry.look_again()

    def _put_all_starts(self) -> None:
        for item in read_partition(self._table, "F", ConsistentRead=True):
            self._put_starts(item)

    def _put_starts(self, item: Item) -> None:
        """Write down what starts a function, by its item, unless something newer is there."""
        routing, function_id = read_routing(item), item["sk"]["S"]
        canary = None if routing.canary is None else routing.canary.version
        numbers = [number for number in (routing.live, canary) if number is not None]
        put_starts(self._table, item, [self._registry.plan_of(function_id, number) for number in numbers])

    def _settle(self, function_id: str) -> None:
        self._db.update_item(
            TableName=self._table,
            Key=function_key(function_id),
            UpdateExpression="REMOVE pending",
            ConditionExpression=EXISTS,
        )


def awaits(plan: Plan | None) -> set[tuple[str, str | None]]:
    """What a version waits for. Before one that waits for more than the live version is live itself, `cache_s` must
    pass after `stage`: also if somebody else staged the same a moment ago."""
    return {(pause.event, pause.match) for pause in plan.pauses if pause.event is not None} if plan else set()


def _is_made(change: Callable[[Routing | None], Routing], pending: Item, now: Routing) -> bool:
    """Whether an interrupted change is what this one would have made of the routing before."""
    before = pending.get("M")
    if not before:
        return False
    try:
        return change(read_routing(before)) == now
    except NotPossible:
        return False

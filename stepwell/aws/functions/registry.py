"""Functions and their versions in the table, and what every Lambda knows of them.

A counter moves with every change, and what was read before it moved is read again. Who starts runs looks at it every
`cache_s` seconds, who only goes on with them every minute. One rule: wait paths are registered before a version that
uses them is live (`stage`, then `register`).
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import orjson

from stepwell.aws.clients import client
from stepwell.aws.functions.schedules import Schedules
from stepwell.aws.resources import Resources
from stepwell.aws.table.items import read_item, read_partition
from stepwell.aws.table.keys import (
    EXISTS,
    FUNCTIONS_STATE,
    NEW,
    SAME_ROUTING,
    WAIT_SHARDS,
    Item,
    function_key,
    version_key,
)
from stepwell.aws.table.routings import read_routing, routing_attributes
from stepwell.aws.table.start_items import put_starts, read_routes
from stepwell.core.compile import compile_plan, version_hash
from stepwell.core.plan import Plan, Starts
from stepwell.core.routing.heads import Head, wait_paths
from stepwell.core.routing.triggers import Catalog, Paths
from stepwell.core.routing.versions import NotPossible, Release, Route, Routing, RoutingChange, retired
from stepwell.core.run.max_run_duration import longest_run_ms

Target = dict[str, Any]
WaitPaths = dict[str, set[Paths | None]]
AT_ONCE = Release()
_VERSION_AGE_S = 60.0  # what executes a version may change while the version does not, as with a new base image


@dataclass(frozen=True, slots=True)
class Version:
    plan: Plan
    definition: bytes  # JSON, normalised
    targets: dict[str, Target]  # by step: what executes it
    hash: str
    created_at: int
    message: str
    author: str


@dataclass(frozen=True, slots=True)
class FunctionRow:
    """`pending`: its last change was interrupted before everybody could learn of it, and must be made again."""

    id: str
    live: int | None
    file: str
    pending: bool = False
    routing: Routing = field(default_factory=lambda: Routing(None))


@dataclass(frozen=True, slots=True)
class Registered:
    function_id: str
    version: int
    is_new: bool


@dataclass(slots=True)
class _State:
    """What all functions have in common. `generation` counts changes, `longest` is ms by the name of an event.
    `wait_shards`: among how many partitions the waits by one name alone are divided. `has_starts`: what starts the
    functions is written down for all of them."""

    generation: int
    paths: WaitPaths
    longest: dict[str, int]
    wait_shards: int = 1
    has_starts: bool = False


class Registry:
    def __init__(self, resources: Resources, clock: Callable[[], float] = time.monotonic) -> None:
        self._table, self._cache_s, self._clock = resources.table, resources.cache_s, clock
        self._schedules = Schedules(resources)
        self._state = _State(-1, {}, {})  # not looked at yet
        self._looked_at = clock()
        self._catalog: Catalog | None = None
        self._versions: dict[tuple[str, int], Version] = {}

    @property
    def _db(self) -> Any:
        return client("dynamodb")

    # --- what is live ----------------------------------------------------------------------------------------------

    def catalog(self) -> Catalog:
        """The live functions, as they were at most `cache_s` ago."""
        self._look(self._cache_s if self._state.generation >= 0 else 0)
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
        return self._known(starts.function_id, starts.version).plan

    def _route_of(self, row: FunctionRow) -> Route:
        assert row.live is not None
        live, canary, state = self._known(row.id, row.live).plan, row.routing.canary, row.routing.state
        if canary is None:
            return Route(live, state=state)
        return Route(live, self._known(row.id, canary.version).plan, canary.weight, canary.sticky, state)

    def look_again(self) -> None:
        """Be as old as the table from now on, whatever was looked at before."""
        self._looked_at = float("-inf")

    def functions(self) -> list[FunctionRow]:
        rows, versions = [], self._versions
        for item in self._query("F"):
            routing, function_id = read_routing(item), item["sk"]["S"]
            live = routing.live
            rows.append(FunctionRow(function_id, live, item["file"]["S"], "pending" in item, routing))
            if live is not None and (function_id, live) not in versions:
                versions[function_id, live] = _version(item, live)
        return rows

    def version(self, function_id: str, number: int) -> Version:
        """What executes it, as it was at most a minute ago. Raises KeyError for one that does not exist."""
        self._look(_VERSION_AGE_S)
        return self._known(function_id, number)

    def _known(self, function_id: str, number: int) -> Version:
        versions = self._versions  # what is read while the counter moves must not outlast it
        found = versions.get((function_id, number))
        if found is None:
            item = read_item(self._table, version_key(function_id, number))
            if item is None:
                raise KeyError(f"{function_id} has no version {number}")
            found = versions[function_id, number] = _version(item, number)
        return found

    def _look(self, age_s: float) -> None:
        """Forget what was read before the last change, unless that was looked for within `age_s`."""
        now = self._clock()
        if now - self._looked_at < age_s:
            return
        self._looked_at = now
        state = self._read_state()
        if state.generation != self._state.generation:
            self._state, self._catalog, self._versions = state, None, {}

    def versions(self, function_id: str) -> list[tuple[int, Version]]:
        """All versions, the oldest first."""
        return [(number := int(item["sk"]["S"]), _version(item, number)) for item in self._query(f"V#{function_id}")]

    def longest_wait_ms(self, event_name: str) -> int:
        """For how long after it was accepted an event of this name may be looked for; 0 if nothing ever awaited it."""
        return self._state.longest.get(event_name, 0)

    @property
    def wait_shards(self) -> int:
        """Among how many partitions new waits by one name alone are divided. Only a push of this version of Stepwell
        says many: Lambdas of earlier ones look into the first partition alone."""
        return self._state.wait_shards

    def _read_state(self) -> _State:
        item = read_item(self._table, FUNCTIONS_STATE)
        if item is None:
            return _State(0, {}, {})
        paths = orjson.loads(item["w"]["B"])
        read = {name: {_path_set(one) for one in item} for name, item in paths.items()}
        longest = orjson.loads(item["l"]["B"]) if "l" in item else {}
        shards = int(item["ws"]["N"]) if "ws" in item else 1
        return _State(int(item["g"]["N"]), read, longest, shards, item.get("st") == item["g"])

    # --- changes ---------------------------------------------------------------------------------------------------

    def stage(self, definition: Mapping[str, Any]) -> bool:
        """Register the wait paths of a definition, and for how long it may look for events. True if that is new, which
        routers know `cache_s` later."""
        plan = compile_plan(dict(definition), 0)
        wanted, longest = wait_paths(awaits(plan)), longest_run_ms(plan)

        def merge(state: _State) -> bool:
            known = deepcopy(state)
            for name, items in wanted.items():
                state.paths.setdefault(name, set()).update(items)
                state.longest[name] = max(longest, state.longest.get(name, 0))
                if None in items:
                    state.wait_shards = WAIT_SHARDS
            return state != known

        return self._change(merge)

    def register(
        self,
        definition: Mapping[str, Any],
        targets: Mapping[str, Target],
        code: Mapping[str, str],
        message: str,
        author: str,
        file: str,
        now: int,
        release: Release = AT_ONCE,
    ) -> Registered:
        """Make this a version, equal to the newest no new one, and release it. `code`: hashes of the steps' code.
        Raises NotPossible."""
        function_id = definition["id"]
        item: Item = {
            "hash": {"S": version_hash(definition, code)},
            "d": {"B": zlib.compress(orjson.dumps(definition), 9)},
            "t": {"B": orjson.dumps(targets)},
            "at": {"N": str(now)},
            "message": {"S": message},
            "author": {"S": author},
        }
        release.check()
        number, is_new = self._new_version(function_id, item)

        def released(old: Routing | None) -> Routing:
            is_overtaken = old is not None and old.live is not None and old.live > number
            return old if old is not None and is_overtaken else release.of(old, number, now)  # who pushed last is live

        self._change_routing(function_id, released, now, file)
        return Registered(function_id, number, is_new)

    def routing(self, function_id: str) -> Routing | None:
        """As it is now; None for a function that is not known."""
        item = read_item(self._table, function_key(function_id))
        return None if item is None else read_routing(item)

    def change_routing(self, function_id: str, change: RoutingChange, now: int) -> Routing:
        """Raises KeyError for an unknown function, NotPossible."""

        def checked(old: Routing | None) -> Routing:
            if old is None:
                raise KeyError(function_id)
            items = self._query(f"V#{function_id}", ProjectionExpression="sk, gone")
            new = change(old, [int(item["sk"]["S"]) for item in items], now)
            gone = {int(item["sk"]["S"]) for item in items if "gone" in item}
            canary = None if new.canary is None else new.canary.version
            for number in {new.live, canary} & gone:
                raise NotPossible(f"version {number} was pruned, so that nothing can run it; push it again")
            return new

        return self._change_routing(function_id, checked, now)

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
            while (current := self.routing(function_id)) is not None and current != known:
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
        plan = None if routing.live is None else self._known(function_id, routing.live).plan
        self._schedules.set(function_id, plan, routing.is_paused, routing.is_guarded, now)
        item = read_item(self._table, function_key(function_id))
        if item is not None:
            self._put_starts(item)
        self._change(lambda state: True, with_starts=True)

    def _put_starts(self, item: Item) -> None:
        """Write down what starts a function, by its item, unless something newer is there."""
        routing, function_id = read_routing(item), item["sk"]["S"]
        canary = None if routing.canary is None else routing.canary.version
        plans = [self._known(function_id, number).plan for number in (routing.live, canary) if number is not None]
        put_starts(self._table, item, plans)

    def _settle(self, function_id: str) -> None:
        self._db.update_item(
            TableName=self._table,
            Key=function_key(function_id),
            UpdateExpression="REMOVE pending",
            ConditionExpression=EXISTS,
        )

    def _new_version(self, function_id: str, item: Item) -> tuple[int, bool]:
        while True:
            newest = self._newest(function_id)
            if newest is not None and newest[1] == item["hash"]["S"]:
                self._refresh(function_id, newest[0], item)
                return newest[0], False
            number = newest[0] + 1 if newest else 1
            try:
                new = {**version_key(function_id, number), **item}
                self._db.put_item(TableName=self._table, Item=new, ConditionExpression=NEW)
                return number, True
            except self._db.exceptions.ConditionalCheckFailedException:
                continue  # somebody else pushed at the same time

    def _refresh(self, function_id: str, number: int, item: Item) -> None:
        """What executes an unchanged version may have changed, as after a prune."""
        self._db.update_item(
            TableName=self._table,
            Key=version_key(function_id, number),
            UpdateExpression="SET t = :t REMOVE gone",
            ExpressionAttributeValues={":t": item["t"]},
        )

    def mark_gone(self, function_id: str, number: int) -> None:
        """What executes this version is removed: until it is pushed again, it cannot go live."""
        self._db.update_item(
            TableName=self._table,
            Key=version_key(function_id, number),
            UpdateExpression="SET gone = :yes",
            ConditionExpression=EXISTS,
            ExpressionAttributeValues={":yes": {"BOOL": True}},
        )

    def _newest(self, function_id: str) -> tuple[int, str] | None:
        found = self._db.query(
            TableName=self._table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": f"V#{function_id}"}},
            ScanIndexForward=False,
            Limit=1,
            ConsistentRead=True,
        )["Items"]
        return (int(found[0]["sk"]["S"]), found[0]["hash"]["S"]) if found else None

    def retire(self, function_ids: Sequence[str]) -> None:
        """Start no new runs of these functions; their open runs go on. Nothing happens to one that is not there."""
        for function_id in function_ids:
            try:
                self.change_routing(function_id, lambda old, versions, now: retired(old), time.time_ns() // 1_000_000)
            except KeyError:
                continue

    def _change(self, edit: Callable[[_State], bool], *, with_starts: bool = False) -> bool:
        """Edit the state and count up, against whoever does so at the same time. `with_starts`: what starts functions
        is written down first for all of them, if it is not, as after a change by an earlier version of Stepwell."""
        while True:
            state = self._read_state()
            if not edit(state):
                return False
            if with_starts and not state.has_starts:
                for function in self._query("F"):
                    self._put_starts(function)
            has_starts = with_starts or state.has_starts
            written = {
                name: [p if p is None else list(map(list, p)) for p in items] for name, items in state.paths.items()
            }
            item = {
                **FUNCTIONS_STATE,
                "g": {"N": str(state.generation + 1)},
                "w": {"B": orjson.dumps(written)},
                "l": {"B": orjson.dumps(state.longest)},
                "ws": {"N": str(state.wait_shards)},
                **({"st": {"N": str(state.generation + 1)}} if has_starts else {}),
            }
            try:
                self._db.put_item(
                    TableName=self._table,
                    Item=item,
                    ConditionExpression=f"{NEW} OR g = :g",
                    ExpressionAttributeValues={":g": {"N": str(state.generation)}},
                )
            except self._db.exceptions.ConditionalCheckFailedException:
                continue
            self.look_again()
            return True

    def _query(self, partition: str, **options: Any) -> list[Item]:
        return read_partition(self._table, partition, ConsistentRead=True, **options)


def _is_made(change: Callable[[Routing | None], Routing], pending: Item, now: Routing) -> bool:
    """Whether an interrupted change is what this one would have made of the routing before."""
    before = pending.get("M")
    if not before:
        return False
    try:
        return change(read_routing(before)) == now
    except NotPossible:
        return False


def _version(item: Item, number: int) -> Version:
    definition = zlib.decompress(item["d"]["B"])
    return Version(
        compile_plan(orjson.loads(definition), number),
        definition,
        orjson.loads(item["t"]["B"]),
        item["hash"]["S"],
        int(item["at"]["N"]),
        item["message"]["S"],
        item["author"]["S"],
    )


def awaits(plan: Plan | None) -> set[tuple[str, str | None]]:
    """What a version waits for. Before one that waits for more than the live version is live itself, `cache_s` must
    pass after `stage`: also if somebody else staged the same a moment ago."""
    return {(pause.event, pause.match) for pause in plan.pauses if pause.event is not None} if plan else set()


def _path_set(raw: list[list[str]] | None) -> Paths | None:
    return None if raw is None else tuple(tuple(path) for path in raw)

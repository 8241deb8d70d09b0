"""Functions and their versions in the table, and what every Lambda knows of them.

A counter moves with every change, and what was read before it moved is read again. Who starts runs looks at it every
`cache_s` seconds, who only goes on with them every minute. One rule: wait paths are registered before a version that
uses them is live (`stage`, then `register`).
"""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from stepwell.aws.clients import client
from stepwell.aws.items import read_item, read_partition
from stepwell.aws.resources import Resources
from stepwell.aws.table import EXISTS, FUNCTIONS_STATE, NEW, Item, function_key, schedule_key, version_key
from stepwell.core.catalog import Catalog, Paths
from stepwell.core.cron import next_tick
from stepwell.core.plan import Plan, compile_plan
from stepwell.core.waits import wait_index

Target = dict[str, Any]
WaitPaths = dict[str, set[Paths | None]]
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
    id: str
    live: int | None
    file: str


@dataclass(frozen=True, slots=True)
class Registered:
    function_id: str
    version: int
    is_new: bool


class Registry:
    def __init__(self, resources: Resources, clock: Callable[[], float] = time.monotonic) -> None:
        self._table, self._cache_s, self._clock = resources.table, resources.cache_s, clock
        self._generation = -1  # not looked at yet
        self._looked_at = clock()
        self._catalog: Catalog | None = None
        self._paths: WaitPaths = {}
        self._versions: dict[tuple[str, int], Version] = {}

    @property
    def _db(self) -> Any:
        return client("dynamodb")

    # --- what is live ----------------------------------------------------------------------------------------------

    def catalog(self) -> Catalog:
        """The live functions, as they were at most `cache_s` ago."""
        self._look(self._cache_s if self._generation >= 0 else 0)
        catalog = self._catalog
        if catalog is None:
            live = [self._known(row.id, row.live).plan for row in self.functions() if row.live is not None]
            catalog = self._catalog = Catalog(live, (), self._paths)
        return catalog

    def functions(self) -> list[FunctionRow]:
        rows, versions = [], self._versions
        for item in self._query("F"):
            live = int(item["live"]["N"]) if "live" in item else None
            function_id = item["sk"]["S"]
            rows.append(FunctionRow(function_id, live, item["file"]["S"]))
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
        generation, paths = self._state()
        if generation != self._generation:
            self._generation, self._paths, self._catalog, self._versions = generation, paths, None, {}

    def versions(self, function_id: str) -> list[tuple[int, Version]]:
        """All versions, the oldest first."""
        return [(number := int(item["sk"]["S"]), _version(item, number)) for item in self._query(f"V#{function_id}")]

    def _state(self) -> tuple[int, WaitPaths]:
        item = read_item(self._table, FUNCTIONS_STATE)
        if item is None:
            return 0, {}
        paths = orjson.loads(item["w"]["B"])
        read = {name: {_path_set(one) for one in its} for name, its in paths.items()}
        return int(item["g"]["N"]), read

    # --- changes ---------------------------------------------------------------------------------------------------

    def stage(self, definition: Mapping[str, Any]) -> bool:
        """Register the wait paths of a definition. True if there are new ones, which routers know `cache_s` later."""
        wanted = _wait_paths(compile_plan(dict(definition), 0))

        def merge(paths: WaitPaths) -> bool:
            before = {name: set(its) for name, its in paths.items()}
            for name, its in wanted.items():
                paths.setdefault(name, set()).update(its)
            return paths != before

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
    ) -> Registered:
        """Make this the live version; equal to the newest, it makes no new one. `code`: hashes of the steps' code."""
        function_id = definition["id"]
        content = orjson.dumps({"definition": definition, "code": code}, option=orjson.OPT_SORT_KEYS)
        item: Item = {
            "hash": {"S": hashlib.sha256(content).hexdigest()},
            "d": {"B": zlib.compress(orjson.dumps(definition), 9)},
            "t": {"B": orjson.dumps(targets)},
            "at": {"N": str(now)},
            "message": {"S": message},
            "author": {"S": author},
        }
        number, is_new = self._new_version(function_id, item)
        live = {"live": {"N": str(number)}, "file": {"S": file}}
        self._db.put_item(TableName=self._table, Item={**function_key(function_id), **item, **live})
        self._schedule(self.version(function_id, number).plan, now)
        self._change(lambda paths: True)
        return Registered(function_id, number, is_new)

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
            UpdateExpression="SET t = :t",
            ExpressionAttributeValues={":t": item["t"]},
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
                self._db.update_item(
                    TableName=self._table,
                    Key=function_key(function_id),
                    UpdateExpression="REMOVE live",
                    ConditionExpression=EXISTS,
                )
            except self._db.exceptions.ConditionalCheckFailedException:
                continue
            for item in self._query("C", f"{function_id}#"):
                self._unschedule(item["sk"])
        self._change(lambda paths: True)

    def _schedule(self, plan: Plan, now: int) -> None:
        """A cron trigger that stays keeps its next tick."""
        wanted = {(t.cron, t.timezone) for t in plan.triggers if t.cron is not None}
        keys = {schedule_key(plan.function_id, str(cron), tz)["sk"]["S"]: (str(cron), tz) for cron, tz in wanted}
        kept = {item["sk"]["S"] for item in self._query("C", f"{plan.function_id}#")}
        for sk in kept - keys.keys():
            self._unschedule({"S": sk})
        for sk in keys.keys() - kept:
            due = next_tick(*keys[sk], now)
            item = {"pk": {"S": "C"}, "sk": {"S": sk}, "next": {"N": str(due)}}
            self._db.put_item(TableName=self._table, Item=item)

    def _unschedule(self, sort_key: Item) -> None:
        self._db.delete_item(TableName=self._table, Key={"pk": {"S": "C"}, "sk": sort_key})

    def _change(self, edit: Any) -> bool:
        """Edit the wait paths and count up, against whoever does so at the same time."""
        while True:
            generation, paths = self._state()
            if not edit(paths):
                return False
            written = {name: [p if p is None else list(map(list, p)) for p in its] for name, its in paths.items()}
            item = {**FUNCTIONS_STATE, "g": {"N": str(generation + 1)}, "w": {"B": orjson.dumps(written)}}
            try:
                self._db.put_item(
                    TableName=self._table,
                    Item=item,
                    ConditionExpression=f"{NEW} OR g = :g",
                    ExpressionAttributeValues={":g": {"N": str(generation)}},
                )
            except self._db.exceptions.ConditionalCheckFailedException:
                continue
            self._looked_at = float("-inf")
            return True

    def _query(self, partition: str, prefix: str = "") -> list[Item]:
        return read_partition(self._table, partition, prefix, ConsistentRead=True)


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


def _wait_paths(plan: Plan) -> WaitPaths:
    found: WaitPaths = {}
    for pause in plan.pauses:
        if pause.event is not None:
            index = wait_index(pause.match)
            found.setdefault(pause.event, set()).add(index.paths if index else None)
    return found


def _path_set(raw: list[list[str]] | None) -> Paths | None:
    return None if raw is None else tuple(tuple(path) for path in raw)

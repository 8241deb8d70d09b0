"""The types of events in the table, and what every Lambda that takes events knows of them.

One item says which types and versions there are, and what became of them last is at most `cache_s` old. One rule: a
schema is written before that item names it, by its content; so whoever reads the item reads what belongs together.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import orjson

from stepwell.aws.clients import client
from stepwell.aws.items import read_item
from stepwell.aws.resources import Resources
from stepwell.aws.table import NEW, TYPES_STATE, schema_key
from stepwell.event_types.types import (
    Change,
    ChangeKind,
    KeptSchema,
    KnownType,
    Policy,
    Refused,
    Schema,
    TypeDetail,
    Types,
    TypeVersion,
    check_change,
    check_type,
)
from stepwell.event_types.validation import Check, Checked

_MOST_BYTES = 350_000  # of the item; DynamoDB takes 400 KB


@dataclass(frozen=True, slots=True)
class _Version:
    name: str
    digest: str  # of its schema
    created_at: int


@dataclass(frozen=True, slots=True)
class _Type:
    policy: Policy
    versions: tuple[_Version, ...]  # the newest last


@dataclass(frozen=True, slots=True)
class _State:
    """`generation` counts the changes; 0: there never was one."""

    generation: int
    unknown: Policy
    types: dict[str, _Type]

    def digest(self, name: str, version: str) -> str | None:
        its = self.types.get(name)
        return next((one.digest for one in its.versions if one.name == version), None) if its else None


class TypeStore:
    """Implements `api.types.TypeRegistry`, and says what is known (`current`)."""

    def __init__(self, resources: Resources, clock: Callable[[], float] = time.monotonic) -> None:
        self._table, self._cache_s, self._clock = resources.table, resources.cache_s, clock
        self._generation = -1  # not looked at yet
        self._looked_at = clock()
        self._current = Types({}, Policy.OFF, lambda name, version: None)

    # --- what events are held against ------------------------------------------------------------------------------

    def current(self) -> Types:
        """All types as they were at most `cache_s` ago; schemas are read when they are first needed."""
        now = self._clock()
        if self._generation < 0 or now - self._looked_at >= self._cache_s:
            state = self._read()
            self._looked_at = now
            if state.generation != self._generation:
                self._generation, self._current = state.generation, self._types(state)
        return self._current

    def _types(self, state: _State) -> Types:
        def check(name: str, version: str) -> Check | None:
            kept = self._schema(state, name, version)
            return None if kept is None else Check(kept.schema, kept.checked)

        return Types({name: _known(its) for name, its in state.types.items()}, state.unknown, check)

    # --- what people read ------------------------------------------------------------------------------------------

    def read_types(self) -> list[TypeDetail]:
        return [_detail(name, its) for name, its in sorted(self._read().types.items())]

    def read_type(self, name: str) -> TypeDetail | None:
        its = self._read().types.get(name)
        return None if its is None else _detail(name, its)

    def read_schema(self, name: str, version: str) -> Any:
        kept = self._schema(self._read(), name, version)
        return None if kept is None else kept.schema

    def unknown_types(self) -> Policy:
        return self._read().unknown

    # --- changes ---------------------------------------------------------------------------------------------------

    def preview(self, its: TypeVersion) -> ChangeKind:
        """What `register_type` would do. Raises Refused."""
        check_type(its)
        state = self._read()
        old = state.types.get(its.name)
        kept = self._schema(state, its.name, its.version)
        return check_change(its, kept, _known(old) if old else None, len(state.types))

    def newest(self) -> dict[str, Schema]:
        """The schema of the newest version of each type."""
        state = self._read()
        found = {name: self._schema(state, name, its.versions[-1].name) for name, its in state.types.items()}
        return {name: kept.schema for name, kept in found.items() if kept is not None}

    def register_type(self, its: TypeVersion) -> Change:
        checked = check_type(its)
        digest = self._put_schema(its, checked)
        while True:
            state = self._read()
            old = state.types.get(its.name)
            kept = self._schema(state, its.name, its.version)
            what = check_change(its, kept, _known(old) if old else None, len(state.types))
            before_version = its.version if kept else old.versions[-1].name if old else None
            before = self._schema(state, its.name, before_version) if before_version is not None else None
            new = _registered(old, its, digest, time.time_ns() // 1_000_000)
            changed = replace(state, types={**state.types, its.name: new})
            if new == old or self._write(changed):
                schema = None if before is None else before.schema
                return Change(its.name, its.version, new.policy, what, schema, before_version)

    def set_policy(self, name: str, policy: Policy) -> bool:
        while True:
            state = self._read()
            its = state.types.get(name)
            if its is None:
                return False
            if self._write(replace(state, types={**state.types, name: replace(its, policy=policy)})):
                return True

    def set_unknown_types(self, policy: Policy) -> None:
        while not self._write(replace(self._read(), unknown=policy)):
            pass  # somebody else changed something at the same time

    # --- items -----------------------------------------------------------------------------------------------------

    def _read(self) -> _State:
        item = read_item(self._table, TYPES_STATE)
        if item is None:
            return _State(0, Policy.OFF, {})
        content = orjson.loads(zlib.decompress(item["t"]["B"]))
        types = {
            name: _Type(Policy(policy), tuple(_Version(*version) for version in versions))
            for name, (policy, versions) in content["types"].items()
        }
        return _State(int(item["g"]["N"]), Policy(content["unknown"]), types)

    def _write(self, state: _State) -> bool:
        """False if somebody else changed something since this was read. Raises Refused."""
        types = {
            name: (its.policy, [(one.name, one.digest, one.created_at) for one in its.versions])
            for name, its in state.types.items()
        }
        content = zlib.compress(orjson.dumps({"unknown": state.unknown, "types": types}), 9)
        if len(content) > _MOST_BYTES:
            raise Refused("there are more types and versions than an environment can hold", is_conflict=True)
        item = {**TYPES_STATE, "g": {"N": str(state.generation + 1)}, "t": {"B": content}}
        db = client("dynamodb")
        try:
            db.put_item(
                TableName=self._table,
                Item=item,
                ConditionExpression=f"{NEW} OR g = :g",
                ExpressionAttributeValues={":g": {"N": str(state.generation)}},
            )
        except db.exceptions.ConditionalCheckFailedException:
            return False
        self._looked_at = float("-inf")
        return True

    def _put_schema(self, its: TypeVersion, checked: Checked) -> str:
        body = orjson.dumps(its.schema, option=orjson.OPT_SORT_KEYS)
        digest = hashlib.sha256(body).hexdigest()[:32]
        item = {**schema_key(its.name, digest), "s": {"B": zlib.compress(body, 9)}, "w": {"BOOL": checked.is_whole}}
        if checked.deepest is not None:
            item["d"] = {"N": str(checked.deepest)}
        client("dynamodb").put_item(TableName=self._table, Item=item)
        return digest

    def _schema(self, state: _State, name: str, version: str) -> KeptSchema | None:
        digest = state.digest(name, version)
        item = None if digest is None else read_item(self._table, schema_key(name, digest))
        if item is None:
            return None
        deepest = int(item["d"]["N"]) if "d" in item else None
        return KeptSchema(orjson.loads(zlib.decompress(item["s"]["B"])), Checked(deepest, item["w"]["BOOL"]))


def _registered(old: _Type | None, its: TypeVersion, digest: str, now: int) -> _Type:
    policy = its.policy or (old.policy if old else Policy.WARN)
    versions = old.versions if old else ()
    if any(one.name == its.version for one in versions):
        return _Type(policy, tuple(replace(v, digest=digest) if v.name == its.version else v for v in versions))
    return _Type(policy, (*versions, _Version(its.version, digest, now)))


def _known(its: _Type) -> KnownType:
    return KnownType(its.policy, tuple(version.name for version in its.versions))


def _detail(name: str, its: _Type) -> TypeDetail:
    return TypeDetail(name, its.policy, [(version.name, version.created_at) for version in its.versions])

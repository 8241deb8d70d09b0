"""Event types in the table, and the cache of them in each Lambda that accepts events.

One item lists all types and versions; a Lambda's copy is at most `cache_s` old. Schemas are separate items. Each is
written under a digest of its content before the list refers to it, so a reader of the list always finds the schemas
that belong to it.
"""

from __future__ import annotations

import functools
import hashlib
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from stepwell.aws.clients import client
from stepwell.aws.resources import Resources
from stepwell.aws.table.items import read_item
from stepwell.aws.table.keys import NEW, TYPES_STATE, schema_key
from stepwell.event_types.changes import (
    UnknownVersion,
    check_type,
    choose_default,
    plan_registrations,
    remove_version,
)
from stepwell.event_types.registry import (
    KeptSchema,
    KnownType,
    Policy,
    TypeChange,
    TypeDetail,
    TypeRefused,
    Types,
    TypeVersion,
)
from stepwell.event_types.validation import Check, Checked

_MOST_BYTES = 350_000  # of the item; DynamoDB allows 400 KB


@dataclass(frozen=True, slots=True)
class _Version:
    name: str
    digest: str  # of the schema
    created_at: int


@dataclass(frozen=True, slots=True)
class _Type:
    policy: Policy
    versions: tuple[_Version, ...]  # oldest first
    chosen: str | None = None  # the version for events without `v`; None: the newest


@dataclass(frozen=True, slots=True)
class _State:
    """The content of the item that lists all types. `generation` counts the changes; 0: there is no item yet."""

    generation: int
    unknown: Policy
    types: dict[str, _Type]

    def digest(self, name: str, version: str) -> str | None:
        stored_type = self.types.get(name)
        versions = stored_type.versions if stored_type else ()
        return next((stored.digest for stored in versions if stored.name == version), None)


class TypeStore:
    """Implements `api.v1.event_types.TypeRegistry`, and caches the types for checking events (`current`)."""

    def __init__(self, resources: Resources, clock: Callable[[], float] = time.monotonic) -> None:
        self._table, self._cache_s, self._clock = resources.table, resources.cache_s, clock
        self._generation = -1  # not read yet
        self._read_at = clock()
        self._current = Types({}, Policy.OFF, lambda name, version: None)

    # --- checking events -------------------------------------------------------------------------------------------

    def current(self) -> Types:
        """All types, at most `cache_s` old. Schemas are read when they are first needed."""
        now = self._clock()
        if self._generation < 0 or now - self._read_at >= self._cache_s:
            state = self._read()
            self._read_at = now
            if state.generation != self._generation:
                self._generation, self._current = state.generation, self._types(state)
        return self._current

    def _types(self, state: _State) -> Types:
        def check(name: str, version: str) -> Check | None:
            stored = self._schema(state, name, version)
            return None if stored is None else Check(stored.schema, stored.checked)

        return Types(_all_known(state), state.unknown, check)

    # --- reading, for the API --------------------------------------------------------------------------------------

    def read_types(self) -> list[TypeDetail]:
        return [_detail(name, stored_type) for name, stored_type in sorted(self._read().types.items())]

    def read_type(self, name: str) -> TypeDetail | None:
        stored_type = self._read().types.get(name)
        return None if stored_type is None else _detail(name, stored_type)

    def read_schema(self, name: str, version: str) -> Any:
        stored = self._schema(self._read(), name, version)
        return None if stored is None else stored.schema

    def unknown_types(self) -> Policy:
        return self._read().unknown

    # --- changes ---------------------------------------------------------------------------------------------------

    def register_type(self, version: TypeVersion) -> TypeChange:
        return self.register_types([version])[0]

    def register_types(self, types: Sequence[TypeVersion], *, dry_run: bool = False) -> list[TypeChange]:
        checks = [(version, check_type(version)) for version in types]
        digests = [] if dry_run else [self._put_schema(version, checked) for version, checked in checks]
        while True:
            state = self._read()
            changes = plan_registrations(types, _all_known(state), functools.partial(self._schema, state))
            if dry_run:
                return changes
            now, after = time.time_ns() // 1_000_000, dict(state.types)
            for version, digest, change in zip(types, digests, changes, strict=True):
                after[version.name] = _registered(after.get(version.name), version.version, change.policy, digest, now)
            if after == state.types or self._write(replace(state, types=after)):
                return changes

    def choose_default(self, name: str, version: str | None) -> None:
        def chosen(stored_type: _Type) -> _Type:
            return replace(stored_type, chosen=choose_default(name, _known(stored_type), version).chosen)

        self._change(name, chosen)

    def remove_version(self, name: str, version: str, carried_by: Iterable[str]) -> None:
        """Removes a version from the list. The schema stays in the table: cached lists may still refer to it."""
        has_tried = False

        def without(stored_type: _Type) -> _Type | None:
            nonlocal has_tried
            left = tuple(stored for stored in stored_type.versions if stored.name != version)
            if has_tried and len(left) == len(stored_type.versions):
                return stored_type  # an earlier request removed the version, but the answer was lost
            after = remove_version(name, _known(stored_type), version, carried_by)
            has_tried = True
            return None if after is None else replace(stored_type, versions=left, chosen=after.chosen)

        try:
            self._change(name, without)
        except UnknownVersion:
            if not has_tried:
                raise

    def _change(self, name: str, change: Callable[[_Type], _Type | None]) -> None:
        """Changes one type, again until no other change interferes. Raises UnknownVersion, and errors of `change`."""
        while True:
            state = self._read()
            other_types = {other: stored_type for other, stored_type in state.types.items() if other != name}
            if name not in state.types:
                raise UnknownVersion(f"event type {name} no longer has any versions")
            after = change(state.types[name])
            if after == state.types[name]:
                return
            if self._write(replace(state, types=other_types if after is None else {**other_types, name: after})):
                return

    def set_policy(self, name: str, policy: Policy) -> bool:
        while True:
            state = self._read()
            stored_type = state.types.get(name)
            if stored_type is None:
                return False
            if self._write(replace(state, types={**state.types, name: replace(stored_type, policy=policy)})):
                return True

    def set_unknown_types(self, policy: Policy) -> None:
        while not self._write(replace(self._read(), unknown=policy)):
            pass  # another process changed the types at the same time

    # --- items -----------------------------------------------------------------------------------------------------

    def _read(self) -> _State:
        item = read_item(self._table, TYPES_STATE)
        if item is None:
            return _State(0, Policy.OFF, {})
        content = orjson.loads(zlib.decompress(item["t"]["B"]))
        types = {
            name: _Type(Policy(policy), tuple(_Version(*version) for version in versions), *chosen)
            for name, (policy, versions, *chosen) in content["types"].items()
        }
        return _State(int(item["g"]["N"]), Policy(content["unknown"]), types)

    def _write(self, state: _State) -> bool:
        """Writes the list of types. Returns False if it has changed since it was read. Raises TypeRefused."""
        types = {
            name: (
                stored_type.policy,
                [(stored.name, stored.digest, stored.created_at) for stored in stored_type.versions],
                *([stored_type.chosen] if stored_type.chosen is not None else []),  # older Lambdas ignore it
            )
            for name, stored_type in state.types.items()
        }
        content = zlib.compress(orjson.dumps({"unknown": state.unknown, "types": types}), 9)
        if len(content) > _MOST_BYTES:
            raise TypeRefused(
                "the environment has too many event types and versions; remove some before you register more",
                is_conflict=True,
            )
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
        self._read_at = float("-inf")
        return True

    def _put_schema(self, version: TypeVersion, checked: Checked) -> str:
        body = orjson.dumps(version.schema, option=orjson.OPT_SORT_KEYS)
        digest = hashlib.sha256(body).hexdigest()[:32]
        item = {**schema_key(version.name, digest), "s": {"B": zlib.compress(body, 9)}, "w": {"BOOL": checked.is_whole}}
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


def _registered(old: _Type | None, version: str, policy: Policy, digest: str, now: int) -> _Type:
    if old is None:
        return _Type(policy, (_Version(version, digest, now),))
    if any(stored.name == version for stored in old.versions):
        versions = tuple(
            replace(stored, digest=digest) if stored.name == version else stored for stored in old.versions
        )
    else:
        versions = (*old.versions, _Version(version, digest, now))
    return _Type(policy, versions, old.chosen)


def _all_known(state: _State) -> dict[str, KnownType]:
    return {name: _known(stored_type) for name, stored_type in state.types.items()}


def _known(stored_type: _Type) -> KnownType:
    return KnownType(stored_type.policy, tuple(version.name for version in stored_type.versions), stored_type.chosen)


def _detail(name: str, stored_type: _Type) -> TypeDetail:
    return TypeDetail(
        name,
        stored_type.policy,
        [(version.name, version.created_at) for version in stored_type.versions],
        stored_type.chosen,
    )

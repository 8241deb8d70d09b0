"""Rules for changes of event types: registering, removing and choosing versions.

Valid events must not become invalid unexpectedly. So a registered version can only be changed in a way that keeps all
events valid; new optional fields are allowed. A new version that rejects events that the default accepts becomes the
default only if the user allows it.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson

from stepwell.core.definition.problems import Problem, nearest
from stepwell.event_types.registry import (
    ChangeKind,
    KeptSchema,
    KnownType,
    Policy,
    Schema,
    TypeChange,
    TypeRefused,
    TypeVersion,
)
from stepwell.event_types.validation import BadSchema, Checked, check_schema, json_pointer

MOST_VERSIONS = 100  # of one type
MOST_TYPES = 2000
_MAX_LISTED = 5  # breaking changes in one message
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
Read = Callable[[str, str], KeptSchema | None]  # returns the registered schema of a name and version


def version_of(schema: Any) -> str:
    """The version of a type in a trigger: as stated in the schema, else a name derived from the content."""
    given = schema if isinstance(schema, dict) else {}
    properties = given.get("properties")
    v = properties.get("v") if isinstance(properties, dict) else None
    for item in (given.get("x-stepwell-v"), v.get("const") if isinstance(v, dict) else None):
        if isinstance(item, str) and item:
            return item
    return "def-" + hashlib.sha256(orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]


def check_type(version: TypeVersion) -> Checked:
    """Checks the name, the version and the schema. Raises TypeRefused."""
    if not version.name or len(version.name) > 256 or _CONTROL.search(version.name) or version.name.endswith("*"):
        raise TypeRefused(
            "the name of a type must be an event name: 1 to 256 characters, no control characters, no * at the end"
        )
    if version.name.startswith("stepwell/"):
        raise TypeRefused("event names that begin with stepwell/ are reserved for the engine and cannot have a type")
    if not 1 <= len(version.version) <= 128 or _CONTROL.search(version.version):
        raise TypeRefused("a version must be a string of 1 to 128 characters, such as 2026-11-23.1")
    try:
        return check_schema(version.schema)
    except BadSchema as bad:
        message = f"the schema of {version.name} {version.version} cannot be used: {bad}"
        raise TypeRefused(message, bad.problems, version=version) from None


# --- registering -----------------------------------------------------------------------------------------------------


def plan_registrations(types: Sequence[TypeVersion], known: Mapping[str, KnownType], read: Read) -> list[TypeChange]:
    """The changes that result from registering these versions in this order; `check_type` must have accepted each.

    Raises TypeRefused if a version cannot be registered; then none may be.
    """
    after = dict(known)
    schemas: dict[tuple[str, str], Schema] = {}

    def schema(name: str, version: str) -> Schema | None:
        if (name, version) not in schemas and (stored := read(name, version)) is not None:
            schemas[name, version] = stored.schema
        return schemas.get((name, version))

    changes = []
    for item in types:
        old = after.get(item.name)
        stored = schema(item.name, item.version) if old is not None and item.version in old.versions else None
        what = _kind(item, stored, old, len(after))
        before_version = item.version if stored is not None else old.versions[-1] if old else None
        before = schema(item.name, before_version) if before_version is not None else None
        after[item.name] = new = _registered(item, old)
        schemas[item.name, item.version] = item.schema
        changes.append(TypeChange(item.name, item.version, new.policy, what, before, before_version, new.default))
    for item in types:
        was, now = known.get(item.name), after[item.name]
        if was is not None and now.default == item.version != was.default:
            _check_default(item, was, schema(item.name, was.default))
    return changes


def _registered(version: TypeVersion, old: KnownType | None) -> KnownType:
    if old is None:
        return KnownType(version.policy or Policy.WARN, (version.version,))
    versions = old.versions if version.version in old.versions else (*old.versions, version.version)
    return KnownType(version.policy or old.policy, versions, old.chosen)


def _kind(version: TypeVersion, stored: Schema | None, known: KnownType | None, types: int) -> ChangeKind:
    """The kind of change. `stored` is the registered schema of the version, if any. Raises TypeRefused."""
    if stored is None:
        if known is None and types >= MOST_TYPES:
            raise TypeRefused(
                f"the server has the maximum of {types:,} types; remove a type first", is_conflict=True, version=version
            )
        if known is not None and len(known.versions) >= MOST_VERSIONS:
            message = (
                f"{version.name} has the maximum of {MOST_VERSIONS} versions; remove one that is no longer sent:"
                f" stepwell types remove {version.name} {known.versions[0]}"
            )
            raise TypeRefused(message, is_conflict=True, version=version)
        return "created"
    if stored == version.schema:
        return "unchanged"
    if breaking := refused_by(version.schema, stored):
        message = (
            f"the change would break {version.name} {version.version}, whose events must stay valid"
            f" ({_listed(breaking)}); register the schema under a new version"
        )
        raise TypeRefused(message, breaking, is_conflict=True, version=version)
    return "updated"


def refused_by(new: Schema, old: Schema) -> list[Problem]:
    """The reasons why events that are valid under `old` may be invalid under `new`, with places in `new`."""
    from stepwell.event_types.compatibility import compare

    return [Problem(change.pointer, change.message) for change in compare(old, new).backward if not change.additive]


def says_policy(schema_policy: Policy | None, policy: Policy | None) -> bool:
    """Whether a version's schema states deliberately what happens to invalid events.

    `policy` is the policy in force. A `reject` that repeats it does not count, because schemas are often copied.
    """
    return schema_policy is not None and (schema_policy is not Policy.REJECT or policy is not Policy.REJECT)


def _check_default(version: TypeVersion, was: KnownType, schema: Schema | None) -> None:
    """Raises TypeRefused if the version must not become the default, because it would reject events of today."""
    if version.may_break or schema is None or was.policy is Policy.OFF or says_policy(version.policy, was.policy):
        return
    if breaking := refused_by(version.schema, schema):
        raise TypeRefused(surprise(version, was.default, breaking), breaking, is_conflict=True, version=version)


def surprise(version: TypeVersion, default: str, breaking: Sequence[Problem]) -> str:
    """The message for a version that must not become the default: the reason, and what to do."""
    keep = f"stepwell types default {shlex.quote(version.name)} {shlex.quote(default)}"
    return (
        f"{version.name} {version.version} breaks {default}, the default for events without `v`, so such events would"
        f" become invalid at once ({_listed(breaking)}). Push with --breaking if all senders are ready; or state in the"
        f' schema of {version.version} what happens to invalid events, such as "x-stepwell-policy": "warn"; or keep'
        f" {default} the default until senders set `v`: {keep}"
    )


def _listed(breaking: Sequence[Problem]) -> str:
    texts = [f"{json_pointer(item.pointer) or 'the schema'}: {item.message}" for item in breaking[:_MAX_LISTED]]
    more = len(breaking) - len(texts)
    return "; ".join(texts) + (f"; and {more} more" if more else "")


# --- removing, and choosing the default ------------------------------------------------------------------------------


class UnknownVersion(Exception):
    """There is no such version. The message names the nearest one."""


def choose_default(name: str, known: KnownType, version: str | None) -> KnownType:
    """The type with this default version; None: always the newest. Raises UnknownVersion."""
    if version is not None:
        _must_have(name, known, version)
    return KnownType(known.policy, known.versions, version)


def remove_version(name: str, known: KnownType, version: str, carried_by: Iterable[str] = ()) -> KnownType | None:
    """The type without this version; None if it was the last one.

    `carried_by` are the ids of live functions whose triggers contain this version. Raises UnknownVersion or
    TypeRefused.
    """
    _must_have(name, known, version)
    others = [v for v in known.versions if v != version]
    if known.chosen == version and others:
        raise TypeRefused(
            f"{name} {version} is the default and cannot be removed; make another version the default first:"
            f" stepwell types default {name} {others[-1]}",
            is_conflict=True,
        )
    if carriers := list(carried_by):
        raise TypeRefused(
            f"{name} {version} is used in a trigger of {', '.join(carriers)}, which is live; push the function without"
            " this version, or roll the function back, then remove the version",
            is_conflict=True,
        )
    return KnownType(known.policy, others, known.chosen) if others else None


def _must_have(name: str, known: KnownType, version: str) -> None:
    if version not in known.versions:
        raise UnknownVersion(f"{name} has no version {version!r}; {nearest(version, reversed(known.versions))}")

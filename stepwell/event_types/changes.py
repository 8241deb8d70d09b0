"""Which changes of types a server makes: versions that are registered, removed, or made the default.

One rule: nobody's events become wrong by surprise. A version may be changed only so that events which were right stay
right (that they may have meant something else by a field that is named now only, nobody minds). And a new version that
refuses what the default accepts becomes the default only if somebody says so.
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
_MOST_NAMED = 5  # breaking changes in one message
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
Read = Callable[[str, str], KeptSchema | None]  # the schema of a version that is registered, by name and version


def version_of(schema: Any) -> str:
    """The version of a type that stands in a trigger: what its schema says, else a name made from its content."""
    given = schema if isinstance(schema, dict) else {}
    properties = given.get("properties")
    v = properties.get("v") if isinstance(properties, dict) else None
    for item in (given.get("x-stepwell-v"), v.get("const") if isinstance(v, dict) else None):
        if isinstance(item, str) and item:
            return item
    return "def-" + hashlib.sha256(orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]


def check_type(version: TypeVersion) -> Checked:
    """Raises TypeRefused."""
    if not version.name or len(version.name) > 256 or _CONTROL.search(version.name) or version.name.endswith("*"):
        raise TypeRefused("the name of a type is that of its events: 1 to 256 characters, no control characters, no *")
    if version.name.startswith("stepwell/"):
        raise TypeRefused("events whose names begin with stepwell/ are the engine's own, and need no type")
    if not 1 <= len(version.version) <= 128 or _CONTROL.search(version.version):
        raise TypeRefused("a version is a text of 1 to 128 characters, such as 2026-11-23.1")
    try:
        return check_schema(version.schema)
    except BadSchema as bad:
        message = f"the schema of {version.name} {version.version} cannot be used: {bad}"
        raise TypeRefused(message, bad.problems, version=version) from None


# --- registering -----------------------------------------------------------------------------------------------------


def plan_registrations(types: Sequence[TypeVersion], known: Mapping[str, KnownType], read: Read) -> list[TypeChange]:
    """What registering these versions, in this order, does. `types`: each checked. Raises TypeRefused, if one of them
    cannot be: then none is to be registered."""
    after = dict(known)
    schemas: dict[tuple[str, str], Schema] = {}

    def schema(name: str, version: str) -> Schema | None:
        if (name, version) not in schemas and (kept := read(name, version)) is not None:
            schemas[name, version] = kept.schema
        return schemas.get((name, version))

    changes = []
    for item in types:
        old = after.get(item.name)
        kept = schema(item.name, item.version) if old is not None and item.version in old.versions else None
        what = _kind(item, kept, old, len(after))
        before_version = item.version if kept is not None else old.versions[-1] if old else None
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


def _kind(version: TypeVersion, kept: Schema | None, known: KnownType | None, types: int) -> ChangeKind:
    """`kept`: what the version says now, if it is registered. Raises TypeRefused."""
    if kept is None:
        if known is None and types >= MOST_TYPES:
            raise TypeRefused(
                f"there are {types:,} types already, the most there may be", is_conflict=True, version=version
            )
        if known is not None and len(known.versions) >= MOST_VERSIONS:
            message = (
                f"{version.name} has {MOST_VERSIONS} versions already, the most there may be; remove one that nobody"
                f" sends any more: stepwell types remove {version.name} {known.versions[0]}"
            )
            raise TypeRefused(message, is_conflict=True, version=version)
        return "created"
    if kept == version.schema:
        return "unchanged"
    if breaking := refused_by(version.schema, kept):
        message = (
            f"this would break {version.name} {version.version}, whose events must stay right ({_listed(breaking)});"
            " register it under a new version"
        )
        raise TypeRefused(message, breaking, is_conflict=True, version=version)
    return "updated"


def refused_by(new: Schema, old: Schema) -> list[Problem]:
    """Why events that are right under `old` may be wrong under `new`, with places in `new`."""
    from stepwell.event_types.compatibility import compare

    return [Problem(one.pointer, one.message) for one in compare(old, new).backward if not one.additive]


def says_policy(schema_policy: Policy | None, policy: Policy | None) -> bool:
    """Whether a version says what becomes of events that it refuses, so that nobody is surprised: it states a policy,
    and another one than a `reject` that is in force (`policy`) already, as who copies a schema repeats it."""
    return schema_policy is not None and (schema_policy is not Policy.REJECT or policy is not Policy.REJECT)


def _check_default(version: TypeVersion, was: KnownType, schema: Schema | None) -> None:
    """Raises TypeRefused if the version would become the default by surprise."""
    if version.may_break or schema is None or was.policy is Policy.OFF or says_policy(version.policy, was.policy):
        return
    if breaking := refused_by(version.schema, schema):
        raise TypeRefused(surprise(version, was.default, breaking), breaking, is_conflict=True, version=version)


def surprise(version: TypeVersion, default: str, breaking: Sequence[Problem]) -> str:
    """Why a version is not made the default, and the ways on."""
    keep = f"stepwell types default {shlex.quote(version.name)} {shlex.quote(default)}"
    return (
        f"{version.name} {version.version} breaks {default}, which counts for events without `v`, so that their"
        f" senders would be wrong at once ({_listed(breaking)}). Push with --breaking if they are ready; or state in"
        f' the schema of {version.version} what becomes of their events, as in "x-stepwell-policy": "warn"; or keep'
        f" {default} the default until they name `v`: {keep}"
    )


def _listed(breaking: Sequence[Problem]) -> str:
    words = [f"{json_pointer(one.pointer) or 'the schema'}: {one.message}" for one in breaking[:_MOST_NAMED]]
    more = len(breaking) - len(words)
    return "; ".join(words) + (f"; and {more} more" if more else "")


# --- removing, and choosing the default ------------------------------------------------------------------------------


class UnknownVersion(Exception):
    """There is no such version; the message names the nearest."""


def choose_default(name: str, known: KnownType, version: str | None) -> KnownType:
    """None: the newest again. Raises UnknownVersion."""
    if version is not None:
        _must_have(name, known, version)
    return KnownType(known.policy, known.versions, version)


def remove_version(name: str, known: KnownType, version: str, carried_by: Iterable[str] = ()) -> KnownType | None:
    """The type without this version; None if it was the last. `carried_by`: ids of live functions whose triggers carry
    this version. Raises UnknownVersion, TypeRefused."""
    _must_have(name, known, version)
    others = [v for v in known.versions if v != version]
    if known.chosen == version and others:
        raise TypeRefused(
            f"{name} {version} was made the default, so it is not removed; make another one the default first:"
            f" stepwell types default {name} {others[-1]}",
            is_conflict=True,
        )
    if carriers := list(carried_by):
        raise TypeRefused(
            f"{name} {version} stands in a trigger of {', '.join(carriers)}, which is live; push the function without"
            " it, or roll it back, then remove it",
            is_conflict=True,
        )
    return KnownType(known.policy, others, known.chosen) if others else None


def _must_have(name: str, known: KnownType, version: str) -> None:
    if version not in known.versions:
        raise UnknownVersion(f"{name} has no version {version!r}; {nearest(version, reversed(known.versions))}")

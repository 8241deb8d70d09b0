"""What a server knows of the types of events, what it says of an event, and which changes of types it takes.

One rule: an event's type is its name, and one of the versions of that: `v`, or the newest. A version may be changed
only so that events which were right stay right; that they may have meant something else by a field that is named now
only, nobody minds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from stepwell.core.events import Event, EventError, Invalid
from stepwell.core.problems import Problem, listed
from stepwell.event_types.validation import BadSchema, Check, Checked, check_schema, json_pointer

MOST_VERSIONS = 100  # of one type
MOST_TYPES = 2000
MOST_TOLD = 100  # of the events of one request that are refused: each message about one is an event of its own
Schema = dict[str, Any] | bool
ChangeKind = Literal["created", "updated", "unchanged"]
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Policy(StrEnum):
    """What becomes of an event that is not as its type says."""

    REJECT = "reject"  # it is not accepted; the sender is told why
    WARN = "warn"  # it is accepted and marked; `stepwell/event.invalid` tells of it
    OFF = "off"  # nobody looks


@dataclass(frozen=True, slots=True)
class KnownType:
    policy: Policy
    versions: Sequence[str]  # the newest last


@dataclass(frozen=True, slots=True)
class Verdict:
    policy: Policy
    errors: Sequence[Invalid]


class Types:
    """What is known at one moment. `check` gives what holds events against a version; it is asked once for each."""

    def __init__(
        self, known: Mapping[str, KnownType], unknown: Policy, check: Callable[[str, str], Check | None]
    ) -> None:
        self.known, self.unknown = known, unknown
        self._check = check
        self._checks: dict[tuple[str, str], Check | None] = {}

    def judge(self, event: Event, only: Policy | None = None) -> Verdict | None:
        """What is wrong with an event, and what is to become of it; None if there is nothing to say."""
        if event.name.startswith("stepwell/"):
            return None
        its = self.known.get(event.name)
        policy = self.unknown if its is None else its.policy
        if policy is Policy.OFF or only not in (None, policy):
            return None
        errors = [_unknown(event.name)] if its is None else self._errors(event, its)
        return Verdict(policy, errors) if errors else None

    @property
    def has_any(self) -> bool:
        """False if there is nothing to say of any event."""
        return bool(self.known) or self.unknown is not Policy.OFF

    def refused(
        self, events: Iterable[tuple[int, Event]], only: Policy | None = None
    ) -> list[tuple[int, Event, Sequence[Invalid]]]:
        """Those of some events, by their places in a request, that are not to be accepted, with all that is wrong with
        them. The others that are wrong are marked. `only`: look but at types of this policy."""
        found = []
        for index, event in events:
            verdict = self.judge(event, only)
            if verdict is None:
                continue
            if verdict.policy is Policy.REJECT:
                found.append((index, event, verdict.errors))
            else:
                event.invalid = verdict.errors
        return found

    def _errors(self, event: Event, its: KnownType) -> Sequence[Invalid]:
        version = its.versions[-1] if event.v is None else event.v
        if version not in its.versions:
            newest = listed(reversed(its.versions[-5:]))
            return [Invalid("/v", f"{event.name} has no version {version!r}; the newest are {newest}")]
        key = (event.name, version)
        if key not in self._checks:
            self._checks[key] = self._check(*key)
        check = self._checks[key]
        return [] if check is None else check.errors(event)


def _unknown(name: str) -> Invalid:
    return Invalid("/name", f"no type is registered for {name!r}; `stepwell types list` shows those that are")


def errors_of(refused: Iterable[tuple[int, Event, Sequence[Invalid]]]) -> list[EventError]:
    """What the sender is told."""
    return [EventError(index, error.pointer, error.message) for index, _, errors in refused for error in errors]


# --- changes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TypeVersion:
    """One version of a type, to be registered. `policy` None: as it is, or `warn` if the type is new."""

    name: str
    version: str
    schema: Schema
    policy: Policy | None = None


@dataclass(frozen=True, slots=True)
class KeptSchema:
    """`checked` as `validation.check_schema` said."""

    schema: Schema
    checked: Checked


@dataclass(frozen=True, slots=True)
class TypeDetail:
    """A type as people read it. `versions`: each with the time of its registration (ms), the newest last."""

    name: str
    policy: Policy
    versions: Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Change:
    """What a registration did. `before`: the schema that this replaces, or the newest one until now."""

    name: str
    version: str
    policy: Policy
    what: ChangeKind
    before: Schema | None = field(default=None, repr=False)
    before_version: str | None = None


class Refused(Exception):
    """The type cannot be registered; `problems` says why, with places in the schema. `is_conflict`: because of what is
    registered."""

    def __init__(self, message: str, problems: Sequence[Problem] = (), *, is_conflict: bool = False) -> None:
        super().__init__(message)
        self.problems, self.is_conflict = problems, is_conflict


def check_type(its: TypeVersion) -> Checked:
    """Raises Refused."""
    if not its.name or len(its.name) > 256 or _CONTROL.search(its.name) or its.name.endswith("*"):
        raise Refused("the name of a type is that of its events: 1 to 256 characters, no control characters, no *")
    if its.name.startswith("stepwell/"):
        raise Refused("events whose names begin with stepwell/ are the engine's own, and need no type")
    if not 1 <= len(its.version) <= 128 or _CONTROL.search(its.version):
        raise Refused("a version is a text of 1 to 128 characters, such as 2026-11-23.1")
    try:
        return check_schema(its.schema)
    except BadSchema as bad:
        raise Refused(f"the schema of {its.name} {its.version} cannot be used: {bad}", bad.problems) from None


def check_change(its: TypeVersion, kept: KeptSchema | None, known: KnownType | None, types: int) -> ChangeKind:
    """What registering this does: created, updated or unchanged. `kept`: what the version says now. Raises Refused."""
    if kept is None:
        if known is None and types >= MOST_TYPES:
            raise Refused(f"there are {types:,} types already, the most there may be", is_conflict=True)
        if known is not None and len(known.versions) >= MOST_VERSIONS:
            message = f"{its.name} has {MOST_VERSIONS} versions already, the most there may be"
            raise Refused(message, is_conflict=True)
        return "created"
    if kept.schema == its.schema:
        return "unchanged"
    from stepwell.event_types.compatibility import compare

    breaking = [one for one in compare(kept.schema, its.schema).backward if not one.additive]
    if breaking:
        words = "; ".join(f"{json_pointer(one.pointer)}: {one.message}" for one in breaking[:5])
        raise Refused(
            f"this would break {its.name} {its.version}, whose events must stay right ({words}); register it under"
            " a new version",
            [Problem(one.pointer, one.message) for one in breaking],
            is_conflict=True,
        )
    return "updated"

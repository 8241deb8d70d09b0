"""What a server knows of the types of events, what it says of an event, and which changes of types it takes.

One rule: an event's type is its name, and one of the versions of that: the one that `v` names, or else the type's
default, which is the newest unless somebody chose another. How versions may change: `changes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from stepwell.core.definition.problems import Problem, listed
from stepwell.core.events.events import Event, Invalid
from stepwell.core.events.request import EventError
from stepwell.event_types.effort import Effort
from stepwell.event_types.validation import Check, Checked

MOST_TOLD = 100  # of the events of one request that are refused: each message about one is an event of its own
Schema = dict[str, Any] | bool
ChangeKind = Literal["created", "updated", "unchanged"]


class Policy(StrEnum):
    """What becomes of an event that is not as its type says."""

    REJECT = "reject"  # it is not accepted; the sender is told why
    WARN = "warn"  # it is accepted and marked; `stepwell/event.invalid` tells of it
    OFF = "off"  # nobody looks


@dataclass(frozen=True, slots=True)
class KnownType:
    policy: Policy
    versions: Sequence[str]  # the newest last
    chosen: str | None = None  # the default, if somebody chose one

    @property
    def default(self) -> str:
        """The version that counts for events without `v`."""
        return self.chosen or self.versions[-1]


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

    def judge(self, event: Event, only: Policy | None = None, effort: Effort | None = None) -> Verdict | None:
        """What is wrong with an event, and what is to become of it; None if there is nothing to say."""
        if event.name.startswith("stepwell/"):
            return None
        known_type = self.known.get(event.name)
        policy = self.unknown if known_type is None else known_type.policy
        if policy is Policy.OFF or only not in (None, policy):
            return None
        errors = [_unknown(event.name)] if known_type is None else self._errors(event, known_type, effort or Effort())
        return Verdict(policy, errors) if errors else None

    @property
    def has_any(self) -> bool:
        """False if there is nothing to say of any event."""
        return bool(self.known) or self.unknown is not Policy.OFF

    def refused(
        self, events: Iterable[tuple[int, Event]], only: Policy | None = None, effort: Effort | None = None
    ) -> list[tuple[int, Event, Sequence[Invalid]]]:
        """Those of some events, by their places in a request, that are not to be accepted, with all that is wrong with
        them. The others that are wrong are marked. `only`: look but at types of this policy. `effort`: what is left for
        their request."""
        found, effort = [], effort or Effort()
        for index, event in events:
            verdict = self.judge(event, only, effort)
            if verdict is None:
                continue
            if verdict.policy is Policy.REJECT:
                found.append((index, event, verdict.errors))
            else:
                event.invalid = verdict.errors
        return found

    def _errors(self, event: Event, known_type: KnownType, effort: Effort) -> Sequence[Invalid]:
        version = known_type.default if event.v is None else event.v
        if version not in known_type.versions:
            newest = listed(reversed(known_type.versions[-5:]))
            return [Invalid("/v", f"{event.name} has no version {version!r}; the newest are {newest}")]
        key = (event.name, version)
        if key not in self._checks:
            self._checks[key] = self._check(*key)
        check = self._checks[key]
        return [] if check is None else check.errors(event, effort)


def _unknown(name: str) -> Invalid:
    return Invalid("/name", f"no type is registered for {name!r}; `stepwell types list` shows those that are")


def errors_of(refused: Iterable[tuple[int, Event, Sequence[Invalid]]]) -> list[EventError]:
    """What the sender is told."""
    return [EventError(index, error.pointer, error.message) for index, _, errors in refused for error in errors]


# --- changes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TypeVersion:
    """One version of a type, to be registered. `policy` None: as it is, or `warn` if the type is new. `may_break`:
    whether it may become the default though it refuses events that the default of today accepts."""

    name: str
    version: str
    schema: Schema
    policy: Policy | None = None
    may_break: bool = True


@dataclass(frozen=True, slots=True)
class KeptSchema:
    """`checked` as `validation.check_schema` said."""

    schema: Schema
    checked: Checked


@dataclass(frozen=True, slots=True)
class TypeDetail:
    """A type as people read it. `versions`: each with the time of its registration (ms), the newest last. `chosen`: the
    default, if somebody chose one."""

    name: str
    policy: Policy
    versions: Sequence[tuple[str, int]]
    chosen: str | None = None

    @property
    def default(self) -> str:
        """The version that counts for events without `v`."""
        return self.chosen or self.versions[-1][0]


@dataclass(frozen=True, slots=True)
class TypeChange:
    """What a registration does. `before`: the schema that this replaces, or the newest one until now. `default`: the
    version that counts for events without `v` afterwards."""

    name: str
    version: str
    policy: Policy
    what: ChangeKind
    before: Schema | None = field(default=None, repr=False)
    before_version: str | None = None
    default: str = ""


class TypeRefused(Exception):
    """The type cannot be registered or changed; `problems` says why, with places in the schema of `version`.
    `is_conflict`: because of what is registered."""

    def __init__(
        self,
        message: str,
        problems: Sequence[Problem] = (),
        *,
        is_conflict: bool = False,
        version: TypeVersion | None = None,
    ) -> None:
        super().__init__(message)
        self.problems, self.is_conflict, self.version = problems, is_conflict, version

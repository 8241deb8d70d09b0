"""The event types of a server, and the check of events against them.

The type of an event is found by name. The version is the event's `v`, else the type's default, which is the newest
version unless another was chosen. `changes` has the rules for changes of types.
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

MOST_TOLD = 100  # refused events of a request for which a `stepwell/event.invalid` event is sent
Schema = dict[str, Any] | bool
ChangeKind = Literal["created", "updated", "unchanged"]


class Policy(StrEnum):
    """What happens to an event that does not match the schema."""

    REJECT = "reject"  # refused; the sender gets the errors
    WARN = "warn"  # accepted and marked; a `stepwell/event.invalid` event is sent
    OFF = "off"  # not checked


@dataclass(frozen=True, slots=True)
class KnownType:
    policy: Policy
    versions: Sequence[str]  # newest last
    chosen: str | None = None  # the default version, if it was set

    @property
    def default(self) -> str:
        """The version for events without `v`."""
        return self.chosen or self.versions[-1]


@dataclass(frozen=True, slots=True)
class Verdict:
    policy: Policy
    errors: Sequence[Invalid]


class Types:
    """The types at one moment. `check` returns the check of a name and version; it is called once for each."""

    def __init__(
        self, known: Mapping[str, KnownType], unknown: Policy, check: Callable[[str, str], Check | None]
    ) -> None:
        self.known, self.unknown = known, unknown
        self._check = check
        self._checks: dict[tuple[str, str], Check | None] = {}

    def judge(self, event: Event, only: Policy | None = None, effort: Effort | None = None) -> Verdict | None:
        """The errors of an event and the policy; None if the event is valid or not checked.

        `only`: check only types with this policy.
        """
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
        """Whether any event needs a check."""
        return bool(self.known) or self.unknown is not Policy.OFF

    def refused(
        self, events: Iterable[tuple[int, Event]], only: Policy | None = None, effort: Effort | None = None
    ) -> list[tuple[int, Event, Sequence[Invalid]]]:
        """The events that must be refused, with their index in the request and their errors.

        Events that are only warned about are marked. `only`: check only types with this policy. `effort` is the work
        that is still allowed for the request.
        """
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

    def errors_if_refused(self, event: Event, only: Policy | None = None) -> Sequence[Invalid]:
        """The errors of a single event, if it must be refused. An event that is only warned about is marked."""
        found = self.refused([(0, event)], only) if self.has_any else []
        return found[0][2] if found else ()

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
    return Invalid("/name", f"no type is registered for {name!r}; `stepwell types list` lists the registered types")


def errors_of(refused: Iterable[tuple[int, Event, Sequence[Invalid]]]) -> list[EventError]:
    """The errors as they are answered to the sender."""
    return [EventError(index, error.pointer, error.message) for index, _, errors in refused for error in errors]


# --- changes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TypeVersion:
    """A version of a type to register.

    If `policy` is None, the policy stays, or is `warn` for a new type. `may_break`: the version may become the default
    even if it rejects events that the current default accepts.
    """

    name: str
    version: str
    schema: Schema
    policy: Policy | None = None
    may_break: bool = True


@dataclass(frozen=True, slots=True)
class KeptSchema:
    """A stored schema, with the result of `validation.check_schema`."""

    schema: Schema
    checked: Checked


@dataclass(frozen=True, slots=True)
class TypeDetail:
    """A type as the API shows it.

    `versions` has each version with the time of registration (ms), newest last. `chosen` is the default version, if it
    was set.
    """

    name: str
    policy: Policy
    versions: Sequence[tuple[str, int]]
    chosen: str | None = None

    @property
    def default(self) -> str:
        """The version for events without `v`."""
        return self.chosen or self.versions[-1][0]


@dataclass(frozen=True, slots=True)
class TypeChange:
    """The result of a registration.

    `before` is the schema that is replaced, or the newest schema until now. `default` is the version for events without
    `v` afterwards.
    """

    name: str
    version: str
    policy: Policy
    what: ChangeKind
    before: Schema | None = field(default=None, repr=False)
    before_version: str | None = None
    default: str = ""


class TypeRefused(Exception):
    """The type cannot be registered or changed.

    `problems` are the reasons, with places in the schema of `version`. `is_conflict`: it conflicts with registered
    types.
    """

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

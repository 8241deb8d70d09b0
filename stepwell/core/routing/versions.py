"""Chooses the version of a function for new runs, and defines how users change that. Pure.

Events with the same sticky value get the same version while the routing does not change. A greater weight only moves
values from the live version to the canary, never back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

import orjson

from stepwell.core.cel.equality import canonical, is_scalar
from stepwell.core.cel.expressions import Bindings, ExpressionError, Scope, compile_value
from stepwell.core.events.events import Event
from stepwell.core.plan import Starts


class State(StrEnum):
    ON = "on"
    PAUSED = "paused"  # events that would start runs are stored, and routed on `resume`
    DROPPING = "dropping"  # events that would start runs are discarded
    DELETED = "deleted"


class NotPossible(Exception):
    """The routing cannot be changed in this way. The message contains the reason and what to do."""


@dataclass(frozen=True, slots=True)
class Guard:
    """The state of a guard: when the canary began, the number of looks, and the time of the last one (ms)."""

    began_at: int
    looks: int = 0
    looked_at: int = 0


@dataclass(frozen=True, slots=True)
class Canary:
    """A second version that gets a share of the new runs. `since`: when it got this weight (ms)."""

    version: int
    weight: float
    sticky: str | None = None
    since: int = 0
    guard: Guard | None = None


@dataclass(frozen=True, slots=True)
class Routing:
    """The versions of a function that new runs use. `previous`: the version that `rollback` returns to."""

    live: int | None
    canary: Canary | None = None
    state: State = State.ON
    previous: int | None = None

    @property
    def is_paused(self) -> bool:
        """Whether events start no runs at the moment. Events stored before it began to drop events stay stored."""
        return self.state in (State.PAUSED, State.DROPPING)

    @property
    def is_guarded(self) -> bool:
        return self.canary is not None and self.canary.guard is not None


RoutingChange = Callable[[Routing, Collection[int], int], Routing]
"""Returns a new routing, from a routing, the numbers of existing versions, and the time (ms). Raises NotPossible."""


def to_json(routing: Routing) -> bytes:
    """The stored form of a routing on both platforms. `live` is stored separately."""
    fields = asdict(routing)
    del fields["live"]
    return orjson.dumps(fields)


def from_json(live: int | None, text: bytes | None) -> Routing:
    """The inverse of `to_json`. `text` is None for a function that only ever had a live version."""
    if text is None:
        return Routing(live)
    value = orjson.loads(text)
    canary = value["canary"]
    if canary is not None:
        guard = Guard(**canary["guard"]) if canary["guard"] else None
        canary = Canary(**{**canary, "guard": guard})
    return Routing(live, canary, State(value["state"]), value["previous"])


# --- the choice ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Route:
    """The plans that the new runs of a function are divided between."""

    live: Starts
    canary: Starts | None = None
    weight: float = 0.0
    sticky: str | None = None
    state: State = State.ON

    @property
    def plans(self) -> tuple[Starts, ...]:
        return (self.live,) if self.canary is None else (self.live, self.canary)

    def choose(self, event: Event) -> Starts:
        """The plan for a run of this event. Always the same for the same event."""
        if self.canary is None:
            return self.live
        return self.canary if place(self.live.function_id, self._value(event)) < self.weight else self.live

    def _value(self, event: Event) -> Any:
        """The sticky value of an event. The event's id if the expression has no value, or not a scalar."""
        if self.sticky is not None:
            value = compile_value(self.sticky, Scope.TRIGGER).value(Bindings(event=event.as_json())).value
            if value is not None and is_scalar(value):
                return ["sticky", canonical(value)]
        return ["event", event.id]


def place(function_id: str, value: Any) -> float:
    """The place of a value in [0, 1). Places are evenly distributed, and different for each function."""
    digest = hashlib.blake2b(orjson.dumps([function_id, value]), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / 2**53


# --- releases --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Release:
    """How a version is released: at once, or as a canary with a weight."""

    author: str = ""
    message: str = ""
    weight: float | None = None
    sticky: str | None = None
    guarded: bool = False

    def check(self) -> None:
        """Raises NotPossible if the settings are invalid for every version."""
        if self.weight is None:
            if self.sticky is not None or self.guarded:
                raise NotPossible("only a canary can be sticky or guarded; set a weight, as in --canary 10%")
            return
        check_weight(self.weight)
        check_sticky(self.sticky)

    def of(self, routing: Routing | None, version: int, now: int) -> Routing:
        """The routing after this version is released. Raises NotPossible."""
        self.check()
        if self.weight is None:
            return deployed(routing, version)
        return with_canary(routing, version, self.weight, self.sticky, self.guarded, now)


# --- changes ---------------------------------------------------------------------------------------------------------


def deployed(routing: Routing | None, version: int) -> Routing:
    """The routing after a version goes live: all new runs use it. A paused function stays paused."""
    if routing is None or routing.live is None:
        return Routing(version)
    previous = routing.live if routing.live != version else routing.previous
    return replace(routing, live=version, canary=None, previous=previous)


def with_canary(
    routing: Routing | None, version: int, weight: float, sticky: str | None, guarded: bool, now: int
) -> Routing:
    """The routing after a version gets a share of the new runs. Raises NotPossible.

    If the function has no live version, the version goes live.
    """
    check_weight(weight)
    check_sticky(sticky)
    if routing is None or routing.live is None:
        return Routing(version)
    if routing.live == version:
        raise NotPossible(f"version {version} is live already, so it cannot be a canary; push a change first")
    known = routing.canary
    if known is not None and (known.version, known.weight, known.sticky) == (version, weight, sticky):
        if (known.guard is not None) == guarded:
            return routing
    return replace(routing, canary=Canary(version, weight, sticky, now, Guard(now) if guarded else None))


def promoted(routing: Routing, weight: float | None, now: int) -> Routing:
    """The routing after the canary goes live, or gets another `weight`. Raises NotPossible."""
    canary = _canary(routing)
    if weight is None or weight == 1:
        return replace(routing, live=canary.version, canary=None, previous=routing.live)
    check_weight(weight)
    return replace(routing, canary=replace(canary, weight=weight, since=now))


def rolled_back(routing: Routing, to: int | None, versions: Collection[int]) -> Routing:
    """The routing after a rollback. Raises NotPossible.

    `to`: the version to return to. None: a canary is removed; without one, the previous version goes live.
    """
    if routing.live is None:
        raise NotPossible("the function is not live; push it first")
    if to is None and routing.canary is not None:
        return replace(routing, canary=None)
    if to is None:
        to = routing.previous
        if to is None or to not in versions:
            to = max((version for version in versions if version < routing.live), default=None)
        if to is None:
            raise NotPossible(f"version {routing.live} is the first version; push another one instead")
    if to not in versions:
        raise NotPossible(f"there is no version {to}; the existing versions are {_listed(versions)}")
    if to == routing.live and routing.canary is None:
        raise NotPossible(f"version {to} is live already")
    return replace(routing, live=to, canary=None, previous=None)


def paused(routing: Routing, *, drop: bool) -> Routing:
    """The routing of a paused function, which stores or drops events. Raises NotPossible if it is not live."""
    if routing.live is None:
        raise NotPossible("the function is not live; push it first")
    return replace(routing, state=State.DROPPING if drop else State.PAUSED)


def resumed(routing: Routing) -> Routing:
    """The routing of a function that is not paused. Raises NotPossible if the function is not live."""
    if routing.live is None:
        raise NotPossible("the function is not live; push it first")
    return replace(routing, state=State.ON)


def retired(routing: Routing) -> Routing:
    """The routing of a function that starts no new runs until it is deployed again."""
    return Routing(None, previous=routing.live)


def deleted(routing: Routing) -> Routing:
    """The routing of a deleted function. Only a push brings it back; a server that still has the files does not."""
    return Routing(None, state=State.DELETED)


def check_weight(weight: float) -> None:
    """Raises NotPossible if the weight is out of range."""
    if not 0 < weight < 1:
        raise NotPossible(f"the weight {weight} is not between 0 and 1; write 0.1 for a tenth of the runs")


def check_sticky(sticky: str | None) -> None:
    """Raises NotPossible if the expression cannot be compiled."""
    if sticky is None:
        return
    try:
        compile_value(sticky, Scope.TRIGGER).check()
    except ExpressionError as error:
        raise NotPossible(f"sticky, column {error.column}: {error.message}") from None


def _canary(routing: Routing) -> Canary:
    if routing.canary is None:
        raise NotPossible("there is no canary; create one with `stepwell push --canary 10%`")
    return routing.canary


def _listed(versions: Collection[int]) -> str:
    return ", ".join(map(str, sorted(versions)[-20:])) or "none"

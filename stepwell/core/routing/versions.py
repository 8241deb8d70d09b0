"""Which version of a function its new runs use, and how people change that. Pure.

One rule: whose sticky value is the same gets the same version as long as the routing is the same, and a greater weight
moves some from the live version to the canary, and nobody back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

import orjson

from stepwell.core.cel.expressions import Bindings, ExpressionError, Scope, compile_value
from stepwell.core.events.events import Event
from stepwell.core.plan import Starts
from stepwell.core.routing.waits import canonical, is_scalar


class State(StrEnum):
    ON = "on"
    PAUSED = "paused"  # events that would start runs are kept, and routed on `resume`
    DROPPING = "dropping"  # events that would start runs start none
    DELETED = "deleted"


class NotPossible(Exception):
    """This routing cannot be changed so; the message says why, and what can be done."""


@dataclass(frozen=True, slots=True)
class Guard:
    """What is known of a guarded canary: when it began, how often it was looked at, and when last (ms)."""

    began_at: int
    looks: int = 0
    looked_at: int = 0


@dataclass(frozen=True, slots=True)
class Canary:
    """A second version that gets a share of the new runs; `since`: when it got this weight (ms)."""

    version: int
    weight: float
    sticky: str | None = None
    since: int = 0
    guard: Guard | None = None


@dataclass(frozen=True, slots=True)
class Routing:
    """`previous`: the version that was live before, to which `rollback` goes back."""

    live: int | None
    canary: Canary | None = None
    state: State = State.ON
    previous: int | None = None

    @property
    def is_paused(self) -> bool:
        """Whether events start no runs for now. What was kept before it began to drop events is kept on."""
        return self.state in (State.PAUSED, State.DROPPING)

    @property
    def is_guarded(self) -> bool:
        return self.canary is not None and self.canary.guard is not None


RoutingChange = Callable[[Routing, Collection[int], int], Routing]
"""From a routing, the numbers of the versions that there are, and the time (ms) to another. Raises NotPossible."""


def to_json(routing: Routing) -> bytes:
    """As both platforms keep it, beside `live`."""
    fields = asdict(routing)
    del fields["live"]
    return orjson.dumps(fields)


def from_json(live: int | None, text: bytes | None) -> Routing:
    """`text`: None for a function that never had any routing but its live version."""
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
    """The plans among which the new runs of a function are divided."""

    live: Starts
    canary: Starts | None = None
    weight: float = 0.0
    sticky: str | None = None
    state: State = State.ON

    @property
    def plans(self) -> tuple[Starts, ...]:
        return (self.live,) if self.canary is None else (self.live, self.canary)

    def choose(self, event: Event) -> Starts:
        """The plan that this event's run uses, if it starts one; for equal events always the same."""
        if self.canary is None:
            return self.live
        return self.canary if place(self.live.function_id, self._value(event)) < self.weight else self.live

    def _value(self, event: Event) -> Any:
        """What is sticky of an event: its own id where the expression has no value, or one that is no scalar."""
        if self.sticky is not None:
            value = compile_value(self.sticky, Scope.TRIGGER).value(Bindings(event=event.as_json())).value
            if value is not None and is_scalar(value):
                return ["sticky", canonical(value)]
        return ["event", event.id]


def place(function_id: str, value: Any) -> float:
    """Where a value lies in [0, 1): evenly spread, and for each function differently."""
    digest = hashlib.blake2b(orjson.dumps([function_id, value]), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / 2**53


# --- releases --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Release:
    """How somebody makes a version live: at once, or as a canary of this weight."""

    author: str = ""
    message: str = ""
    weight: float | None = None
    sticky: str | None = None
    guarded: bool = False

    def check(self) -> None:
        """Raises NotPossible for what no version could be released with."""
        if self.weight is None:
            if self.sticky is not None or self.guarded:
                raise NotPossible("only a canary is sticky or guarded; say how large it is, as with --canary 10%")
            return
        check_weight(self.weight)
        check_sticky(self.sticky)

    def of(self, routing: Routing | None, version: int, now: int) -> Routing:
        """The routing with this version released. Raises NotPossible."""
        self.check()
        if self.weight is None:
            return deployed(routing, version)
        return with_canary(routing, version, self.weight, self.sticky, self.guarded, now)


# --- changes ---------------------------------------------------------------------------------------------------------


def deployed(routing: Routing | None, version: int) -> Routing:
    """A version goes live at once: all new runs use it. A pause goes on."""
    if routing is None or routing.live is None:
        return Routing(version)
    previous = routing.live if routing.live != version else routing.previous
    return replace(routing, live=version, canary=None, previous=previous)


def with_canary(
    routing: Routing | None, version: int, weight: float, sticky: str | None, guarded: bool, now: int
) -> Routing:
    """A version gets a share of the new runs; the first version of a function gets all. Raises NotPossible."""
    check_weight(weight)
    check_sticky(sticky)
    if routing is None or routing.live is None:
        return Routing(version)
    if routing.live == version:
        raise NotPossible(f"version {version} is live already, so it cannot be its own canary; push a change first")
    known = routing.canary
    if known is not None and (known.version, known.weight, known.sticky) == (version, weight, sticky):
        if (known.guard is not None) == guarded:
            return routing
    return replace(routing, canary=Canary(version, weight, sticky, now, Guard(now) if guarded else None))


def promoted(routing: Routing, weight: float | None, now: int) -> Routing:
    """The canary goes live; or, with a `weight`, gets another share. Raises NotPossible."""
    canary = _canary(routing)
    if weight is None or weight == 1:
        return replace(routing, live=canary.version, canary=None, previous=routing.live)
    check_weight(weight)
    return replace(routing, canary=replace(canary, weight=weight, since=now))


def rolled_back(routing: Routing, to: int | None, versions: Collection[int]) -> Routing:
    """Back to the live version if there is a canary; else to the version that was live before, or to the one that is
    named. Raises NotPossible."""
    if routing.live is None:
        raise NotPossible("the function is not live; push it")
    if to is None and routing.canary is not None:
        return replace(routing, canary=None)
    if to is None:
        to = routing.previous
        if to is None or to not in versions:
            to = max((version for version in versions if version < routing.live), default=None)
        if to is None:
            raise NotPossible(f"there is no version before {routing.live}")
    if to not in versions:
        raise NotPossible(f"there is no version {to}; there are {_listed(versions)}")
    if to == routing.live and routing.canary is None:
        raise NotPossible(f"version {to} is live already")
    return replace(routing, live=to, canary=None, previous=None)


def paused(routing: Routing, *, drop: bool) -> Routing:
    """Raises NotPossible if the function is not live."""
    if routing.live is None:
        raise NotPossible("the function is not live; push it")
    return replace(routing, state=State.DROPPING if drop else State.PAUSED)


def resumed(routing: Routing) -> Routing:
    """Raises NotPossible if the function is not live; a function that is not paused stays as it is."""
    if routing.live is None:
        raise NotPossible("the function is not live; push it")
    return replace(routing, state=State.ON)


def retired(routing: Routing) -> Routing:
    """No new runs, until it is deployed again."""
    return Routing(None, previous=routing.live)


def deleted(routing: Routing) -> Routing:
    """As retired; but that its files are still there does not bring it back, only a push does."""
    return Routing(None, state=State.DELETED)


def check_weight(weight: float) -> None:
    """Raises NotPossible."""
    if not 0 < weight < 1:
        raise NotPossible(f"a canary's weight lies between 0 and 1, as 0.1 for a tenth; {weight} does not")


def check_sticky(sticky: str | None) -> None:
    """Raises NotPossible."""
    if sticky is None:
        return
    try:
        compile_value(sticky, Scope.TRIGGER).check()
    except ExpressionError as error:
        raise NotPossible(f"sticky, column {error.column}: {error.message}") from None


def _canary(routing: Routing) -> Canary:
    if routing.canary is None:
        raise NotPossible("there is no canary; `stepwell push --canary 10%` makes one")
    return routing.canary


def _listed(versions: Collection[int]) -> str:
    return ", ".join(map(str, sorted(versions)[-20:])) or "none"

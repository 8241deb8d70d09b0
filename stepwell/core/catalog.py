"""Which functions an event starts, and under which keys it is stored: an index over plans, built once per change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import orjson

from stepwell.core.cron import TICK
from stepwell.core.events import Event
from stepwell.core.expressions import Bindings, Scope, compile_expression
from stepwell.core.plan import Plan, Starts, Trigger
from stepwell.core.routing import Route, State
from stepwell.core.waits import event_key, holds_structure, wait_index

Paths = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Miss:
    """A function whose trigger names the event, and that was not started: its expression was not true, or its value of
    `idempotency` has a run already."""

    function_id: str
    expression: str
    problem: str | None  # None: it was false; else why it could not be evaluated, or is no reason to start
    run_id: str | None = None  # the run that counts for the value of `idempotency`

    def as_json(self) -> dict[str, str | None]:
        """As people see it."""
        its = {"function_id": self.function_id, "expression": self.expression, "problem": self.problem}
        return its if self.run_id is None else {**its, "run_id": self.run_id}


def with_misses(kept: bytes | None, misses: Iterable[Miss]) -> list[dict[str, str | None]]:
    """What is kept of an event's misses (JSON), and further ones, which say more of a function than what is kept."""
    further = [miss.as_json() for miss in misses]
    functions = {its["function_id"] for its in further}
    others = [its for its in (orjson.loads(kept) if kept else ()) if its["function_id"] not in functions]
    return [*others, *further]


def _is_plan(starts: Starts) -> Plan:
    return cast(Plan, starts)


class _Live(Mapping[str, Plan]):
    """The plans of the live versions, by function."""

    def __init__(self, routes: Mapping[str, Route], plan: Callable[[Starts], Plan]) -> None:
        self._routes, self._plan = routes, plan

    def __getitem__(self, function_id: str) -> Plan:
        return self._plan(self._routes[function_id].live)

    def __contains__(self, function_id: object) -> bool:
        return function_id in self._routes

    def __iter__(self) -> Iterator[str]:
        return iter(self._routes)

    def __len__(self) -> int:
        return len(self._routes)


class Catalog:
    """`routes`: what new runs use. `awaiting`: every plan that has, or may get, open waits; or else `paths`: the sets
    of paths that waits are found by, by event name (None: by the name alone). `plan`: the plan of what stands in
    `routes`, if those are no plans."""

    def __init__(
        self,
        routes: Iterable[Route],
        awaiting: Iterable[Plan],
        paths: Mapping[str, set[Paths | None]] | None = None,
        plan: Callable[[Starts], Plan] = _is_plan,
    ) -> None:
        self._routes = {route.live.function_id: route for route in routes}
        self._plan = plan
        self.live: Mapping[str, Plan] = _Live(self._routes, plan)
        self._divided = {function_id for function_id, route in self._routes.items() if route.canary is not None}
        self._exact: dict[str, list[tuple[Starts, Trigger]]] = defaultdict(list)
        self._prefixes: list[tuple[str, Starts, Trigger]] = []
        for its in [its for route in self._routes.values() for its in route.plans]:
            for trigger in its.triggers:
                if trigger.event is None:
                    continue
                if trigger.event.endswith("*"):
                    self._prefixes.append((trigger.event[:-1], its, trigger))
                else:
                    self._exact[trigger.event].append((its, trigger))
        self._paths: dict[str, set[Paths | None]] = defaultdict(set, paths or {})
        for awaited in awaiting:
            for pause in awaited.pauses:
                if pause.event is not None:
                    index = wait_index(pause.match)
                    self._paths[pause.event].add(index.paths if index else None)

    def choose(self, function_id: str, event: Event) -> Plan | None:
        """The version that a run of this event uses, of a tick the live one; None if the function is not live."""
        chosen = self._choose(function_id, event)
        return None if chosen is None else self._plan(chosen)

    def _choose(self, function_id: str, event: Event) -> Starts | None:
        route = self._routes.get(function_id)
        if route is None or event.name == TICK:
            return None if route is None else route.live
        return route.choose(event)

    def is_paused(self, function_id: str) -> bool:
        """Whether what would start this function is kept, and its ticks wait, until it is resumed."""
        route = self._routes.get(function_id)
        return route is not None and route.state is State.PAUSED

    def starts(self, event: Event, only: str | None = None) -> tuple[list[Plan], list[Miss]]:
        """The functions that this event starts (each once), and those it names but does not start. The version is
        chosen first, then its triggers decide. `only`: the event is a tick, which starts this one function."""
        if only is not None:
            return ([self.live[only]] if only in self.live else []), []
        candidates = self._exact.get(event.name, ())
        if self._prefixes and not event.name.startswith("stepwell/"):
            candidates = [
                *candidates,
                *((plan, trigger) for prefix, plan, trigger in self._prefixes if event.name.startswith(prefix)),
            ]
        if candidates and self._divided:
            candidates = [(plan, trigger) for plan, trigger in candidates if self._is_chosen(plan, event)]
        if not candidates:
            return [], []
        started: dict[str, Starts] = {}
        missed: list[Miss] = []
        bindings: Bindings | None = None
        for plan, trigger in candidates:
            if trigger.expression is None:
                started[plan.function_id] = plan
            elif plan.function_id not in started:
                bindings = bindings or Bindings(event=event.as_json())
                answer = compile_expression(trigger.expression, Scope.TRIGGER).evaluate(bindings)
                if answer.holds:
                    started[plan.function_id] = plan
                else:
                    missed.append(Miss(plan.function_id, trigger.expression, answer.problem))
        missed = [miss for miss in missed if miss.function_id not in started]
        for function_id in [its for its in started if self._routes[its].state is State.DROPPING]:
            del started[function_id]
            missed.append(Miss(function_id, "", "the function is paused, and drops events until it is resumed"))
        return [self._plan(its) for its in started.values()], missed

    def _is_chosen(self, plan: Starts, event: Event) -> bool:
        return plan.function_id not in self._divided or self._choose(plan.function_id, event) is plan

    @property
    def triggers(self) -> list[str]:
        """The names, and prefixes with `*`, that triggers of live functions have."""
        return sorted({*self._exact, *(f"{prefix}*" for prefix, _, _ in self._prefixes)})

    def is_triggered_by(self, name: str) -> bool:
        """Whether a trigger has this name."""
        return name in self._exact or any(name.startswith(prefix) for prefix, _, _ in self._prefixes)

    def is_awaited(self, name: str) -> bool:
        return name in self._paths

    def is_wanted(self, name: str) -> bool:
        """Whether an event of exactly this name may start or wake anything; wildcards do not count."""
        return name in self._exact or name in self._paths

    def is_awaited_by_name(self, event: Event) -> bool:
        """Whether waits without a key may relate to this event: their `match` has no equality, or one with what is no
        scalar in the run, and then in the event too."""
        its = self._paths.get(event.name, ())
        return None in its or any(holds_structure(paths, event.as_json()) for paths in its if paths)

    def keys(self, event: Event) -> list[bytes]:
        """The keys under which waits that relate to this event may be found, besides its bare name."""
        if event.name not in self._paths:
            return []
        body = event.as_json()
        keys = (event_key(event.name, paths, body) for paths in self._paths[event.name] if paths)
        return [key for key in keys if key is not None]

"""Which functions an event starts, and under which keys it is stored: an index over plans, built once per change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import cast

from stepwell.core.cron import TICK
from stepwell.core.events import Event
from stepwell.core.misses import NO_MISSES, Miss, Misses, MissesOf
from stepwell.core.plan import Plan, Starts, Trigger
from stepwell.core.routing import Route, State
from stepwell.core.trigger_table import Evaluation, TriggerTable
from stepwell.core.waits import event_key, holds_structure, wait_index

Paths = tuple[tuple[str, ...], ...]


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
        self._dropping = {its for its, route in self._routes.items() if route.state is State.DROPPING}
        self._exact: dict[str, list[tuple[Starts, Trigger]]] = defaultdict(list)
        self._prefixes: dict[str, list[tuple[Starts, Trigger]]] = defaultdict(list)
        for its in [its for route in self._routes.values() for its in route.plans]:
            for trigger in its.triggers:
                if trigger.event is None:
                    continue
                if trigger.event.endswith("*"):
                    self._prefixes[trigger.event[:-1]].append((its, trigger))
                else:
                    self._exact[trigger.event].append((its, trigger))
        self._tables: dict[str, TriggerTable] = {}  # by what the triggers' `event` says
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

    def starts(self, event: Event, only: str | None = None) -> tuple[list[Plan], Misses]:
        """The functions that this event starts (each once), and those it names but does not start. The version is
        chosen first, then its triggers decide. `only`: the event is a tick, which starts this one function."""
        if only is not None:
            return ([self.live[only]] if only in self.live else []), NO_MISSES
        tables = self._tables_of(event.name)
        if not tables:
            return [], NO_MISSES
        started: dict[str, Starts] = {}
        evaluation = Evaluation(event)
        found = [(table, self._look_up(table, evaluation, started)) for table in tables]
        misses = [self._misses(*its, event, started) for its in found if its[0].has_expressions]
        others: list[Miss] = []
        for function_id in [its for its in started if its in self._dropping] if self._dropping else ():
            del started[function_id]
            others.append(Miss(function_id, "", "the function is paused, and drops events until it is resumed"))
        plans = [self._plan(its) for its in started.values()]
        return plans, Misses(misses, others) if misses or others else NO_MISSES

    def _tables_of(self, name: str) -> list[TriggerTable]:
        """The triggers that have this name, and those that have a prefix of it."""
        found = [self._table(name, self._exact[name])] if name in self._exact else []
        if self._prefixes and not name.startswith("stepwell/"):
            for prefix, entries in self._prefixes.items():
                if name.startswith(prefix):
                    found.append(self._table(f"{prefix}*", entries))
        return found

    def _table(self, name: str, entries: Sequence[tuple[Starts, Trigger]]) -> TriggerTable:
        table = self._tables.get(name)
        if table is None:
            table = self._tables[name] = TriggerTable(entries)
        return table

    def _look_up(self, table: TriggerTable, evaluation: Evaluation, started: dict[str, Starts]) -> dict[str, list[int]]:
        """Add what these triggers start. Answers the numbers of those that have no value, by what is wrong."""
        numbers, problems = table.look_up(evaluation)
        for number in numbers:
            its, trigger = table.entries[number]
            if its.function_id in started or not self._is_chosen(its, evaluation.event):
                continue
            answer = None if trigger.expression is None else evaluation.answer(trigger.expression)
            if answer is None or answer.holds:
                started[its.function_id] = its
            elif answer.problem is not None:
                problems[answer.problem].append(number)
        return problems

    def _misses(
        self, table: TriggerTable, problems: dict[str, list[int]], event: Event, started: Mapping[str, Starts]
    ) -> MissesOf:
        """Triggers of what is started are none, nor are those of versions that are not chosen for the event."""
        of = table.by_function
        out = {number for function_id in started for number in of.get(function_id, ())}
        for function_id in self._divided:
            out.update(n for n in of.get(function_id, ()) if not self._is_chosen(table.entries[n][0], event))
        return MissesOf(table, out, problems)

    def _is_chosen(self, plan: Starts, event: Event) -> bool:
        return plan.function_id not in self._divided or self._choose(plan.function_id, event) is plan

    @property
    def triggers(self) -> list[str]:
        """The names, and prefixes with `*`, that triggers of live functions have."""
        return sorted({*self._exact, *(f"{prefix}*" for prefix in self._prefixes)})

    def is_triggered_by(self, name: str) -> bool:
        """Whether a trigger has this name."""
        return name in self._exact or any(name.startswith(prefix) for prefix in self._prefixes)

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

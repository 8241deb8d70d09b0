"""An index of all live functions: which ones an event starts, and the keys under which waits find the event.

Changing a function updates only the parts of the index that depend on this function.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import cast

from stepwell.core.events.cron import TICK
from stepwell.core.events.events import Event
from stepwell.core.plan import Plan, Starts, Trigger
from stepwell.core.routing.not_started import NO_MISSES, Misses, MissesOf, NotStarted, dropped_miss
from stepwell.core.routing.trigger_table import Evaluation, TriggerTable
from stepwell.core.routing.versions import Route, State
from stepwell.core.routing.waits import event_key, holds_structure

Paths = tuple[tuple[str, ...], ...]
WaitPaths = Mapping[str, set[Paths | None]]


_Triggers = dict[str, dict[str, list[tuple[Starts, Trigger]]]]  # by name or prefix, and by function


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
    """The index of the live functions.

    `routes`: the versions that new runs use. `paths`: for each event name, the sets of paths by which waits are indexed
    (None: by the name alone), for all versions that have or may get open waits. `plan`: returns the plan of a version,
    if `routes` contains heads.
    """

    def __init__(
        self,
        routes: Iterable[Route],
        paths: WaitPaths | None = None,
        plan: Callable[[Starts], Plan] = _is_plan,
    ) -> None:
        self._routes: dict[str, Route] = {}
        self._plan = plan
        self.live: Mapping[str, Plan] = _Live(self._routes, plan)
        self._divided: set[str] = set()
        self._dropping: set[str] = set()
        self._exact: _Triggers = defaultdict(dict)
        self._prefixes: _Triggers = defaultdict(dict)
        self._tables: dict[str, TriggerTable] = {}  # by the `event` of the triggers: a name, or a prefix with `*`
        self._paths: WaitPaths = paths or {}
        for route in routes:
            self._add(route)

    def change(self, function_id: str, route: Route | None) -> None:
        """Changes the route for new runs of a function. None: the function is no longer live."""
        before = self._routes.pop(function_id, None)
        for name in () if before is None else _event_names(before):
            triggers, key = self._place(name)
            del triggers[key][function_id]
            if not triggers[key]:
                del triggers[key]
            self._tables.pop(name, None)
        self._divided.discard(function_id)
        self._dropping.discard(function_id)
        if route is not None:
            self._add(route)

    def await_by(self, paths: WaitPaths) -> None:
        """Changes the paths by which waits are indexed."""
        self._paths = paths

    def prepare(self) -> Iterator[None]:
        """Builds all tables, one at a time, so that the first event of each name does not have to wait for it."""
        for name in self.triggers:
            triggers, key = self._place(name)
            if key in triggers:  # a change may have removed it
                self._table(name)
                yield

    def _add(self, route: Route) -> None:
        function_id = route.live.function_id
        self._routes[function_id] = route
        if route.canary is not None:
            self._divided.add(function_id)
        if route.state is State.DROPPING:
            self._dropping.add(function_id)
        for plan in route.plans:
            for trigger in plan.triggers:
                if trigger.event is not None:
                    triggers, key = self._place(trigger.event)
                    triggers[key].setdefault(function_id, []).append((plan, trigger))
                    self._tables.pop(trigger.event, None)

    def _place(self, name: str) -> tuple[_Triggers, str]:
        """The dictionary and the key for triggers with this `event`."""
        return (self._prefixes, name[:-1]) if name.endswith("*") else (self._exact, name)

    def choose(self, function_id: str, event: Event) -> Plan | None:
        """The version for a run of this event; for a cron tick, the live one. None if the function is not live."""
        chosen = self._choose(function_id, event)
        return None if chosen is None else self._plan(chosen)

    def _choose(self, function_id: str, event: Event) -> Starts | None:
        route = self._routes.get(function_id)
        if route is None or event.name == TICK:
            return None if route is None else route.live
        return route.choose(event)

    def is_paused(self, function_id: str) -> bool:
        """Whether the function is paused, so that events and cron ticks are stored until it is resumed."""
        route = self._routes.get(function_id)
        return route is not None and route.state is State.PAUSED

    def starts(self, event: Event, only: str | None = None) -> tuple[list[Plan], Misses]:
        """The functions that an event starts, each once, and the misses.

        First the version of a function is chosen, then the triggers of this version decide. `only`: the id of the
        function that a cron tick starts.
        """
        if only is not None:
            return ([self.live[only]] if only in self.live else []), NO_MISSES
        tables = self._tables_of(event.name)
        if not tables:
            return [], NO_MISSES
        started: dict[str, Starts] = {}
        evaluation = Evaluation(event)
        found = [(table, self._look_up(table, evaluation, started)) for table in tables]
        misses = [self._misses(*pair, event, started) for pair in found if pair[0].has_expressions]
        others: list[NotStarted] = []
        for function_id in [name for name in started if name in self._dropping] if self._dropping else ():
            del started[function_id]
            others.append(dropped_miss(function_id))
        plans = [self._plan(starts) for starts in started.values()]
        return plans, Misses(misses, others) if misses or others else NO_MISSES

    def _tables_of(self, name: str) -> list[TriggerTable]:
        """The tables of triggers with this name, and of those with a matching prefix."""
        found = [self._table(name)] if name in self._exact else []
        if self._prefixes and not name.startswith("stepwell/"):
            found += [self._table(f"{prefix}*") for prefix in self._prefixes if name.startswith(prefix)]
        return found

    def _table(self, name: str) -> TriggerTable:
        """The table of the triggers with this `event`, sorted by function."""
        table = self._tables.get(name)
        if table is None:
            triggers, key = self._place(name)
            by_function = sorted(triggers[key].items())
            table = self._tables[name] = TriggerTable([entry for _, entries in by_function for entry in entries])
        return table

    def _look_up(self, table: TriggerTable, evaluation: Evaluation, started: dict[str, Starts]) -> dict[str, list[int]]:
        """Adds the functions that these triggers start to `started`.

        Returns the numbers of the triggers without a value, by the reason.
        """
        numbers, problems = table.look_up(evaluation)
        for number in numbers:
            starts, trigger = table.entries[number]
            if starts.function_id in started or not self._is_chosen(starts, evaluation.event):
                continue
            answer = None if trigger.expression is None else evaluation.answer(trigger.expression)
            if answer is None or answer.holds:
                started[starts.function_id] = starts
            elif answer.problem is not None:
                problems[answer.problem].append(number)
        return problems

    def _misses(
        self, table: TriggerTable, problems: dict[str, list[int]], event: Event, started: Mapping[str, Starts]
    ) -> MissesOf:
        """The misses in a table. Triggers of started functions do not count, or those of versions not chosen."""
        of = table.by_function
        out = {number for function_id in started for number in of.get(function_id, ())}
        for function_id in self._divided:
            out.update(n for n in of.get(function_id, ()) if not self._is_chosen(table.entries[n][0], event))
        return MissesOf(table, out, problems)

    def _is_chosen(self, plan: Starts, event: Event) -> bool:
        return plan.function_id not in self._divided or self._choose(plan.function_id, event) is plan

    @property
    def triggers(self) -> list[str]:
        """The names and prefixes (with `*`) in the triggers of live functions, sorted."""
        return sorted({*self._exact, *(f"{prefix}*" for prefix in self._prefixes)})

    def is_triggered_by(self, name: str) -> bool:
        """Whether a live function has a trigger for this name."""
        return name in self._exact or any(name.startswith(prefix) for prefix in self._prefixes)

    def is_awaited(self, name: str) -> bool:
        return name in self._paths

    def is_wanted(self, name: str) -> bool:
        """Whether a trigger or a wait has exactly this name. Wildcards do not count."""
        return name in self._exact or name in self._paths

    def is_awaited_by_name(self, event: Event) -> bool:
        """Whether waits without a key may match this event.

        The `match` of such a wait has no equality, or compares with a list or object of the run. In the second case,
        the event has a list or object in the same place.
        """
        path_sets = self._paths.get(event.name, ())
        return None in path_sets or any(holds_structure(paths, event.as_json()) for paths in path_sets if paths)

    def keys(self, event: Event) -> list[bytes]:
        """The keys under which waits for this event may be stored, in addition to its name."""
        if event.name not in self._paths:
            return []
        body = event.as_json()
        keys = (event_key(event.name, paths, body) for paths in self._paths[event.name] if paths)
        return [key for key in keys if key is not None]


def _event_names(route: Route) -> set[str]:
    """The values of `event` in the triggers of a route."""
    return {trigger.event for plan in route.plans for trigger in plan.triggers if trigger.event is not None}

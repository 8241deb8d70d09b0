"""Which functions an event starts, and under which keys it is stored: an index over what is live. Changing a function
costs what depends on it, and not a new index of all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import cast

from stepwell.core.events.cron import TICK
from stepwell.core.events.events import Event
from stepwell.core.plan import Plan, Starts, Trigger
from stepwell.core.routing.not_started import NO_MISSES, Misses, MissesOf, NotStarted
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
    """`routes`: what new runs use. `paths`: the sets of paths by which waits are found, of every version that has, or
    may get, open waits, by event name (None: by the name alone). `plan`: the plan of what stands in `routes`, if those
    are no plans."""

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
        self._tables: dict[str, TriggerTable] = {}  # by what the triggers' `event` says
        self._paths: WaitPaths = paths or {}
        for route in routes:
            self._add(route)

    def change(self, function_id: str, route: Route | None) -> None:
        """Let new runs of a function use this; None: it is not live any more."""
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
        """Find waits by these paths from now on."""
        self._paths = paths

    def prepare(self) -> Iterator[None]:
        """Do, a piece at a time, what the first event of each name would else have to wait for."""
        for name in self.triggers:
            triggers, key = self._place(name)
            if key in triggers:  # it may be gone meanwhile
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
        """Where triggers are kept whose `event` is this."""
        return (self._prefixes, name[:-1]) if name.endswith("*") else (self._exact, name)

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
        misses = [self._misses(*pair, event, started) for pair in found if pair[0].has_expressions]
        others: list[NotStarted] = []
        for function_id in [name for name in started if name in self._dropping] if self._dropping else ():
            del started[function_id]
            others.append(NotStarted(function_id, "", "the function is paused, and drops events until it is resumed"))
        plans = [self._plan(starts) for starts in started.values()]
        return plans, Misses(misses, others) if misses or others else NO_MISSES

    def _tables_of(self, name: str) -> list[TriggerTable]:
        """The triggers that have this name, and those that have a prefix of it."""
        found = [self._table(name)] if name in self._exact else []
        if self._prefixes and not name.startswith("stepwell/"):
            found += [self._table(f"{prefix}*") for prefix in self._prefixes if name.startswith(prefix)]
        return found

    def _table(self, name: str) -> TriggerTable:
        """Of the triggers whose `event` is this, by function."""
        table = self._tables.get(name)
        if table is None:
            triggers, key = self._place(name)
            by_function = sorted(triggers[key].items())
            table = self._tables[name] = TriggerTable([entry for _, entries in by_function for entry in entries])
        return table

    def _look_up(self, table: TriggerTable, evaluation: Evaluation, started: dict[str, Starts]) -> dict[str, list[int]]:
        """Add what these triggers start. Answers the numbers of those that have no value, by what is wrong."""
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
        value = self._paths.get(event.name, ())
        return None in value or any(holds_structure(paths, event.as_json()) for paths in value if paths)

    def keys(self, event: Event) -> list[bytes]:
        """The keys under which waits that relate to this event may be found, besides its bare name."""
        if event.name not in self._paths:
            return []
        body = event.as_json()
        keys = (event_key(event.name, paths, body) for paths in self._paths[event.name] if paths)
        return [key for key in keys if key is not None]


def _event_names(route: Route) -> set[str]:
    """What the triggers of a route have as their `event`."""
    return {trigger.event for plan in route.plans for trigger in plan.triggers if trigger.event is not None}

"""The triggers of one event name or prefix, indexed by the values for which the expressions can be true."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from stepwell.core.cel.answer import Answer
from stepwell.core.cel.ast import Path
from stepwell.core.cel.expressions import Bindings, Scope, compile_expression
from stepwell.core.events.events import Event
from stepwell.core.plan import Starts, Trigger
from stepwell.core.routing.not_started import Entries
from stepwell.core.trigger_index import NOTHING, Values, lookup_value, trigger_index, value_at

_FALSE = Answer(False)


class Evaluation:
    """Evaluates expressions for one event, each once."""

    def __init__(self, event: Event) -> None:
        self.event = event
        self._bindings: Bindings | None = None
        self.answers: dict[str, Answer] = {}

    @cached_property
    def body(self) -> dict[str, Any]:
        return self.event.as_json()

    @property
    def length(self) -> int:
        """An upper bound of the length of all variables as JSON. `data` and `user` count twice, as in `event`."""
        return 2 * len(self.event.body) + 4096

    def answer(self, expression: str) -> Answer:
        found = self.answers.get(expression)
        if found is None:
            if self._bindings is None:
                self._bindings = Bindings(event=self.body)
            found = compile_expression(expression, Scope.TRIGGER).evaluate(self._bindings)
            self.answers[expression] = found
        return found


@dataclass(slots=True)
class _Group:
    """The triggers whose indexes have the same paths.

    `by_values`: the numbers of triggers by the values that they need. If an event has no scalar at a path, the triggers
    in one list of `alike` all give the same answer; those in `others` must each be evaluated.
    """

    by_values: dict[Values, list[int]] = field(default_factory=lambda: defaultdict(list))
    alike: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    others: list[int] = field(default_factory=list)


class TriggerTable(Entries):
    """A table that is built for the first event of a name. Expressions without an index are evaluated each time."""

    def __init__(self, entries: Sequence[tuple[Starts, Trigger]]) -> None:
        super().__init__(entries)
        self._always: list[int] = []  # triggers that are evaluated for every event
        self._groups: dict[tuple[Path, ...], _Group] = defaultdict(_Group)
        self._long: list[tuple[int, int]] = []  # the length from which an event may be too costly, and the number
        self.has_expressions = any(trigger.expression is not None for _, trigger in entries)
        for number, (_, trigger) in enumerate(entries):
            self._add(number, trigger)
        self._long.sort()

    def _add(self, number: int, trigger: Trigger) -> None:
        index = trigger.index
        if index is None and trigger.expression is not None:
            index = trigger_index(trigger.expression)
        if index is None:
            self._always.append(number)
            return
        group = self._groups[index.paths]
        for values in index.values:
            numbers = group.by_values[tuple(map(lookup_value, values))]
            if not numbers or numbers[-1] != number:
                numbers.append(number)
        if index.longest is not None:
            self._long.append((index.longest, number))
        (group.others if index.alike is None else group.alike[index.alike]).append(number)

    @cached_property
    def by_function(self) -> dict[str, list[int]]:
        """The numbers of each function's triggers."""
        found: dict[str, list[int]] = defaultdict(list)
        for number, (starts, _) in enumerate(self.entries):
            found[starts.function_id].append(number)
        return found

    def look_up(self, evaluation: Evaluation) -> tuple[Sequence[int], dict[str, list[int]]]:
        """The numbers of the triggers to evaluate, in order, and those known to have no value, by the reason.

        All other triggers are false for this event.
        """
        problems: dict[str, list[int]] = defaultdict(list)
        if not self._groups:
            return self._always, problems
        numbers = {*self._always, *(number for _, number in self._long[: self._longer_than(evaluation.length)])}
        for paths, group in self._groups.items():
            values = tuple([value_at(evaluation.body, event_path) for event_path in paths])
            if NOTHING not in values:
                numbers.update(group.by_values.get(values, ()))
                continue
            numbers.update(group.others)
            for alike in group.alike.values():
                answer = self._answer_of(alike[0], evaluation)
                if answer.holds:  # defensive: without a scalar, none of them can be true
                    numbers.update(alike)
                elif answer.problem is not None:
                    problems[answer.problem] += alike
        return sorted(numbers), problems

    def _longer_than(self, length: int) -> int:
        """How many entries of `_long` an event of this length may be too costly for."""
        return bisect_left(self._long, (length,))

    def _answer_of(self, number: int, evaluation: Evaluation) -> Answer:
        expression = self.entries[number][1].expression
        return _FALSE if expression is None else evaluation.answer(expression)

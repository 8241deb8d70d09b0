"""Checks the expressions of a function against the schemas of the events that they use.

An error is reported if an expression is wrong for values that the schemas allow. Nothing is reported about values that
the schemas do not describe, or that `has()` guards. An optional field without `has()` is a warning ("doubt").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepwell.core.cel.ast import Select, walk
from stepwell.core.cel.expressions import ExpressionError, Scope, compile_value
from stepwell.core.definition.problems import Pointer, Problem
from stepwell.core.run.approvals import placeholders
from stepwell.event_types.expression_checker import CONDITION, MOMENT, ExpressionChecker
from stepwell.event_types.schema import Schema
from stepwell.event_types.shapes import DYNAMIC, Shape, either, of_event


@dataclass(frozen=True, slots=True)
class Versions:
    """The schemas of a type.

    An expression is checked against `default`, the schema for events without `v`. An expression that uses `v` of an
    event is checked against all schemas (`every`), because it may use different fields for each version.
    """

    default: Schema
    every: Callable[[], Iterable[Schema]]


Schemas = Mapping[str, Schema | Versions | None]  # by event name; a name without an entry has no schema

_TICK: Schema = {
    "properties": {"cron": {"type": "string"}, "scheduled_at": {"type": "string"}},
    "required": ["cron", "scheduled_at"],
}


def check(definition: Mapping[str, Any], schemas: Schemas, sticky: str | None = None) -> list[Problem]:
    """The errors in the expressions of a normalised definition, with their places, in the order of the definition.

    Errors are misspelt fields, comparisons that are never true, and operators with operands of a wrong type. The schema
    in a trigger's `definition` has precedence over `schemas`. `sticky` is the expression of the function's routing;
    errors in it have the pointer ("sticky",).
    """
    return [Problem(at, message) for at, checker in _checked(definition, schemas, sticky) for message in checker.wrong]


def doubts(definition: Mapping[str, Any], schemas: Schemas, sticky: str | None = None) -> list[Problem]:
    """The warnings about expressions that are probably wrong, such as an optional field without `has()`."""
    return [Problem(at, message) for at, checker in _checked(definition, schemas, sticky) for message in checker.doubts]


@dataclass(frozen=True, slots=True)
class Place:
    """An expression of a definition, with the triggers of the runs that evaluate it.

    `awaited` is the name of the event that `async` refers to in the expression. `is_moment`: the value is a point in
    time.
    """

    pointer: Pointer
    source: str
    triggers: Sequence[Mapping[str, Any]]
    awaited: str | None = None
    is_condition: bool = True
    is_moment: bool = False


def expressions(definition: Mapping[str, Any], sticky: str | None = None) -> Iterator[Place]:
    """Yields every expression of a normalised definition."""
    triggers = definition["triggers"]
    for i, trigger in enumerate(triggers):
        if "expression" in trigger:
            yield Place(("triggers", i, "expression"), trigger["expression"], [trigger])
    for i, rule in enumerate(definition.get("cancel") or ()):
        if rule.get("if"):
            yield Place(("cancel", i, "if"), rule["if"], triggers, rule["event"])
    if definition.get("idempotency"):
        yield Place(("idempotency",), definition["idempotency"], triggers, is_condition=False)
    for name in ("rate_limit", "singleton"):
        if "key" in definition.get(name, {}):
            yield Place((name, "key"), definition[name]["key"], triggers, is_condition=False)
    if sticky:
        yield Place(("sticky",), sticky, triggers, is_condition=False)
    for step_id, step in definition["steps"].items():
        for i, edge in enumerate(step["after"]):
            at: Pointer = ("steps", step_id, "after", i)
            if edge.get("if"):
                yield Place((*at, "if"), edge["if"], triggers)
            if isinstance(edge.get("wait"), dict):
                until: Pointer = (*at, "wait", "until")
                yield Place(until, edge["wait"]["until"], triggers, is_condition=False, is_moment=True)
            pause = edge.get("async") or {}
            if pause.get("match"):
                yield Place((*at, "async", "match"), pause["match"], triggers, pause["event"])
        for field in ("data", "user", "ts") if step["runtime"]["type"] == "emit" else ():
            if step["runtime"].get(field):
                yield Place(
                    ("steps", step_id, "runtime", field),
                    step["runtime"][field],
                    triggers,
                    is_condition=False,
                    is_moment=field == "ts",
                )
        for source in placeholders(step["runtime"].get("message", "")):
            yield Place(("steps", step_id, "runtime", "message"), source, triggers, is_condition=False)


def _checked(
    definition: Mapping[str, Any], schemas: Schemas, sticky: str | None
) -> Iterator[tuple[Pointer, ExpressionChecker]]:
    for place in expressions(definition, sticky):
        try:
            tree = compile_value(place.source, Scope.MATCH).tree
        except ExpressionError:
            continue  # already reported when the definition was loaded
        uses_v = any(isinstance(node, Select) and node.field == "v" for node in walk(tree))
        event = either([_started_by(trigger, schemas, uses_v) for trigger in place.triggers])
        variables = {
            "event": event,
            "data": event.field("data") or DYNAMIC,
            "user": event.field("user") or DYNAMIC,
            "async": _event(place.awaited, schemas, uses_v) if place.awaited else DYNAMIC,
        }
        wanted = CONDITION if place.is_condition else MOMENT if place.is_moment else None
        yield place.pointer, ExpressionChecker(tree, variables, place.source, wanted)


def _started_by(trigger: Mapping[str, Any], schemas: Schemas, uses_v: bool) -> Shape:
    if "cron" in trigger:
        return of_event(_TICK)
    own = (trigger.get("definition") or {}).get("def")
    if not isinstance(own, dict | bool):
        return _event(trigger["event"], schemas, uses_v)
    others = [_event(trigger["event"], schemas, True)] if uses_v and trigger["event"] in schemas else []
    return either([of_event(own), *others])


def _event(name: str, schemas: Schemas, uses_v: bool) -> Shape:
    found = None if name.endswith("*") else schemas.get(name)
    if isinstance(found, Versions):
        return either(map(of_event, found.every())) if uses_v else of_event(found.default)
    return of_event(found)

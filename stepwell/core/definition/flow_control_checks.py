"""Checks of flow control that involve several fields, expressions of keys, or steps that execute nothing.

Like all checks of this kind, they work on the data as users wrote it, and ignore values of the wrong type.
"""

from __future__ import annotations

from collections.abc import Iterator

from stepwell.core.cel.expressions import Scope, compile_value
from stepwell.core.definition.expression_problems import compile_problems, value_problems
from stepwell.core.definition.graph import Ancestry, Raw
from stepwell.core.definition.problems import Pointer, Problem
from stepwell.core.duration import parse_duration
from stepwell.core.flow.limits import MAX_PERIOD_MS, NOTHING_EXECUTES

_KEYED = ("rate_limit", "singleton")  # whose only expression is the key


def flow_control_problems(definition: Raw) -> Iterator[Problem]:
    """The problems of the fields of a function."""
    for name in _KEYED:
        field = definition.get(name)
        key = field.get("key") if isinstance(field, dict) else None
        if isinstance(key, str) and key:
            yield from compile_problems((name, "key"), key, Scope.TRIGGER, compile_value)
    for at, limit in _limits((), definition):
        yield from _limit(at, limit)
        if isinstance(limit.get("key"), str) and limit["key"]:
            yield from compile_problems((*at, "key"), limit["key"], Scope.TRIGGER, compile_value)
    priority = definition.get("priority")
    if isinstance(priority, str) and priority:
        yield from compile_problems(("priority",), priority, Scope.TRIGGER, compile_value)


def flow_control_problems_of_step(step_id: str, step: Raw, ancestry: Ancestry) -> Iterator[Problem]:
    """The problems of the limits of a step."""
    place: Pointer = ("steps", step_id)
    runtime = step.get("runtime")
    kind = runtime.get("type") if isinstance(runtime, dict) else None
    for name in ("concurrency", "throttle"):
        if kind in NOTHING_EXECUTES and step.get(name):
            yield Problem(
                (*place, name), f"`{name}` has no effect on the runtime {kind}, which executes nothing; remove it"
            )
    for at, limit in _limits(place, step):
        yield from _limit(at, limit)
        if isinstance(limit.get("key"), str) and limit["key"]:
            yield from value_problems((*at, "key"), step_id, limit["key"], Scope.MESSAGE, ancestry)


def _limits(place: Pointer, fields: Raw) -> Iterator[tuple[Pointer, Raw]]:
    """The limits of a function or of a step, with their places."""
    concurrency, throttle = fields.get("concurrency"), fields.get("throttle")
    if isinstance(concurrency, dict):
        yield (*place, "concurrency"), concurrency
    for i, item in enumerate(concurrency if isinstance(concurrency, list) else ()):
        if isinstance(item, dict):
            yield (*place, "concurrency", i), item
    if isinstance(throttle, dict):
        yield (*place, "throttle"), throttle


def _limit(at: Pointer, limit: Raw) -> Iterator[Problem]:
    is_concurrency = at[-1] != "throttle"
    if is_concurrency and limit.get("limit") is None and limit.get("group") is None:
        yield Problem(at, "`limit` is missing; write the maximum number, as in limit: 10, or the `group` that has one")
    period = limit.get("period")
    if isinstance(period, str) and _is_too_long(period):
        yield Problem((*at, "period"), "`period` is longer than 31 days; write a shorter one")


def _is_too_long(period: str) -> bool:
    try:
        return parse_duration(period) > MAX_PERIOD_MS
    except ValueError:
        return False  # reported by the model

"""Checks quickly whether an event may satisfy a wait that is found by the event's name alone.

The check compares the event with the values of the run that the wait stores. It may only have false positives: if it
returns false, the event does not satisfy the wait. If it returns true, `match` is evaluated in the end.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import orjson

from stepwell.core.cel.ast import Call, Const, Node, Path, decisive_parts, path
from stepwell.core.cel.expressions import Bindings, Scope, compile_expression
from stepwell.core.cel.values import keep_paths
from stepwell.core.plan import Plan
from stepwell.core.run.inputs import edge_variables

_MOST_BYTES = 1024  # the maximum size of the run's values that a wait stores
_EXACT = 2**53  # up to this, every integer can be represented as a double
_MISSING = object()
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "_==_": operator.eq,
    "_!=_": operator.ne,
    "_<_": operator.lt,
    "_<=_": operator.le,
    "_>_": operator.gt,
    "_>=_": operator.ge,
}
_KINDS = {
    str: "text",
    bool: "boolean",
    int: "number",
    float: "number",
    type(None): "null",
    list: "container",
    dict: "container",
}
_NEGATED = {"_==_": "_!=_", "_!=_": "_==_", "_<_": "_>=_", "_>=_": "_<_", "_>_": "_<=_", "_<=_": "_>_"}


Side = Path | Const  # a path into `async` or into the run's variables, or a constant


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison that must be true for `match` to be true."""

    function: str
    left: Side
    right: Side


@dataclass(frozen=True, slots=True)
class WaitTests:
    """The comparisons that must be true for a `match` to be true. `is_whole`: there are no other conditions."""

    comparisons: tuple[Comparison, ...]
    is_whole: bool


@lru_cache(maxsize=4096)
def wait_tests(match: str) -> WaitTests:
    """The comparisons in a `match`. Raises ExpressionError."""
    parts = list(decisive_parts(compile_expression(match, Scope.MATCH).tree))
    found = []
    for node, is_negated in parts:
        if isinstance(node, Call) and node.function in _OPERATORS:
            left, right = (_side(arg) for arg in node.args)
            if left is not None and right is not None:
                found.append(Comparison(_NEGATED[node.function] if is_negated else node.function, left, right))
    return WaitTests(tuple(found), len(found) == len(parts))


def _side(node: Node) -> Side | None:
    if isinstance(node, Const):
        return None if isinstance(node.value, bytes) else node
    return path(node)


def known_json(
    plan: Plan, pause: int, event: dict[str, Any], outputs: Mapping[int, bytes], errors: Mapping[int, bytes]
) -> bytes | None:
    """The values of the run that a wait stores: those that `match` names, as a JSON object by variable.

    None if there is no `match`, or if the values are too large. `event` is the event of the run. `outputs` and `errors`
    are JSON texts by step.
    """
    source = plan.pauses[pause].match
    if source is None:
        return None
    match = compile_expression(source, Scope.MATCH)
    values = edge_variables(plan, plan.pauses[pause].parent, event, outputs, errors, [match])
    values |= {"user": event.get("user") or {}, "data": event.get("data") or {}}
    paths = [path for path in match.paths if path[0] != "async"]
    text = orjson.dumps(keep_paths(values, paths) if paths else {})
    return text if len(text) <= _MOST_BYTES else None


class OpenMatch:
    """A `match` with the values of an event filled in, to be compared with many waits.

    `evaluated`: the number of waits for which comparisons were not sufficient and the expression was evaluated.
    """

    def __init__(self, match: str, body: dict[str, Any]) -> None:
        tests = wait_tests(match)
        self.evaluated = 0
        self._expression, self._body = compile_expression(match, Scope.MATCH), body
        self._is_whole, self._is_false = tests.is_whole, False
        self._comparisons: list[tuple[str, Path | None, Any, Path | None, Any]] = []
        for comparison in tests.comparisons:
            (left, value), (right, other) = self._filled(comparison.left), self._filled(comparison.right)
            if left is not None or right is not None:
                self._comparisons.append((comparison.function, left, value, right, other))
            elif (holds := compared(comparison.function, value, other)) is False:
                self._is_false = True  # for every run
            elif holds is None:
                self._is_whole = False

    def _filled(self, side: Side) -> tuple[Path | None, Any]:
        """A path into the run's variables and None, or None and the value."""
        if isinstance(side, Const):
            return None, side.value
        return (None, _value_at(self._body, side[1:])) if side[0] == "async" else (side, None)

    def may_satisfy(self, known: bytes) -> bool:
        """Whether the event may satisfy a wait that stores these values (`known_json`)."""
        if self._is_false:
            return False
        variables, is_decided = orjson.loads(known), self._is_whole
        for function, left, value, right, other in self._comparisons:
            value = value if left is None else _value_at(variables, left)
            other = other if right is None else _value_at(variables, right)
            holds = compared(function, value, other)
            if holds is False:
                return False
            is_decided = is_decided and holds is not None
        if is_decided:
            return True
        self.evaluated += 1
        return self._expression.evaluate(Bindings.of_wait(variables, self._parts_used)).holds

    @cached_property
    def _parts_used(self) -> dict[str, Any]:
        """The parts of the event that `match` names."""
        paths = [path[1:] for path in self._expression.paths if path[0] == "async"]
        parts: dict[str, Any] = keep_paths(self._body, paths)
        return parts


def compared(function: str, left: Any, right: Any) -> bool | None:
    """The result of a comparison by CEL's rules; False also for an error. None if CEL must evaluate it."""
    if left is _MISSING or right is _MISSING:
        return False
    kind = _KINDS[type(left)]
    if kind != _KINDS[type(right)]:
        return function == "_!=_"  # values of different types have no order
    if kind == "container":
        return None
    if kind == "null":
        return function == "_==_"
    if kind == "text":
        if "\0" in left or "\0" in right:  # the library gets other characters in their place
            return None
    elif type(left) is not type(right) and max(abs(left), abs(right)) > _EXACT:
        return None
    return _OPERATORS[function](left, right)


def _value_at(values: Any, path: Path) -> Any:
    for field in path:
        if type(values) is not dict or field not in values:
            return _MISSING
        values = values[field]
    return values

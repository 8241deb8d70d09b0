"""Whether an event may satisfy a wait that is found by its name alone, told by what the wait keeps of its run.

The law: what is told not to satisfy it does not. What may satisfy it is evaluated in the end, as every `match` is.
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
from stepwell.core.cel.values import only
from stepwell.core.plan import Plan
from stepwell.core.run.inputs import edge_variables

_MOST_BYTES = 1024  # that a wait keeps of its run
_EXACT = 2**53  # up to here, every integer is a double
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


Side = Path | Const  # a path, into `async` or what the run knows, or a constant


@dataclass(frozen=True, slots=True)
class Comparison:
    """One that holds if `match` is true."""

    function: str
    left: Side
    right: Side


@dataclass(frozen=True, slots=True)
class WaitTests:
    """What must hold for a `match` to be true, as far as comparing two values tells. `is_whole`: nothing else must."""

    comparisons: tuple[Comparison, ...]
    is_whole: bool


@lru_cache(maxsize=4096)
def wait_tests(match: str) -> WaitTests:
    """Raises ExpressionError."""
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
    """What a wait keeps of its run: the values that `match` names, by variable; None if they are many, or none is
    needed. `event` is the run's; `outputs` and `errors` are JSON texts by step."""
    source = plan.pauses[pause].match
    if source is None:
        return None
    match = compile_expression(source, Scope.MATCH)
    values = edge_variables(plan, plan.pauses[pause].parent, event, outputs, errors, [match])
    values |= {"user": event.get("user") or {}, "data": event.get("data") or {}}
    paths = [named for named in match.paths if named[0] != "async"]
    kept = orjson.dumps(only(values, paths) if paths else {})
    return kept if len(kept) <= _MOST_BYTES else None


class OpenMatch:
    """A `match`, with the values of an event filled in: what waits are compared with. `evaluated`: for how many waits
    comparing told too little."""

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
        """A path into what the run knows, or the value."""
        if isinstance(side, Const):
            return None, side.value
        return (None, _value_at(self._body, side[1:])) if side[0] == "async" else (side, None)

    def may_satisfy(self, known: bytes) -> bool:
        """Whether the event may satisfy a wait that keeps this of its run."""
        if self._is_false:
            return False
        variables, is_told = orjson.loads(known), self._is_whole
        for function, left, value, right, other in self._comparisons:
            value = value if left is None else _value_at(variables, left)
            other = other if right is None else _value_at(variables, right)
            holds = compared(function, value, other)
            if holds is False:
                return False
            is_told = is_told and holds is not None
        if is_told:
            return True
        self.evaluated += 1
        return self._expression.evaluate(Bindings.of_wait(variables, self._named)).holds

    @cached_property
    def _named(self) -> dict[str, Any]:
        """Of the event what the `match` names."""
        paths = [named[1:] for named in self._expression.paths if named[0] == "async"]
        named: dict[str, Any] = only(self._body, paths)
        return named


def compared(function: str, left: Any, right: Any) -> bool | None:
    """Whether a comparison is true, as CEL compares; also False if it has no value. None: only evaluating tells."""
    if left is _MISSING or right is _MISSING:
        return False
    kind = _KINDS[type(left)]
    if kind != _KINDS[type(right)]:
        return function == "_!=_"  # values of two types have no order
    if kind == "container":
        return None
    if kind == "null":
        return function == "_==_"
    if kind == "text":
        if "\0" in left or "\0" in right:  # the library is given other characters for them
            return None
    elif type(left) is not type(right) and max(abs(left), abs(right)) > _EXACT:
        return None
    return _OPERATORS[function](left, right)


def _value_at(values: Any, its_path: Path) -> Any:
    for field in its_path:
        if type(values) is not dict or field not in values:
            return _MISSING
        values = values[field]
    return values

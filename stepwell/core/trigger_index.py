"""Finds the values that an event must have for a trigger's expression to be true, to look triggers up by these values.

The invariant: if an event has other scalars in these places, evaluating the expression gives false and no error. If an
event has no scalar there, the expression must be evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from math import isfinite, prod
from typing import Any

from stepwell.core.cel.ast import Call, Const, Ident, Items, Node, Path, Select, decisive_parts, path
from stepwell.core.cel.cost import evaluated_length
from stepwell.core.cel.expressions import Scope, compile_expression

_MOST_VALUES = 64  # combinations of values in the index of one expression
_MOST_PATHS = 4
_EXACT = 2**53  # above this, some integers cannot be represented as a double
NOTHING = object()

Values = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class TriggerIndex:
    """The index of an expression, which is true only if the event's values at `paths` are one of `values`.

    `longest`: for an event with more bytes of JSON, the evaluation may be refused, so the expression must be evaluated;
    None if there is no such length. `alike`: expressions with equal texts here give the same answer for an event
    without a scalar at the path.
    """

    paths: tuple[Path, ...]
    values: tuple[Values, ...]
    longest: int | None = None
    alike: str | None = None

    def as_json(self) -> list[Any]:
        """The stored form of the index."""
        return [self.paths, self.values, self.longest, self.alike]

    @classmethod
    def from_json(cls, items: list[Any]) -> TriggerIndex:
        """The inverse of `as_json`."""
        paths, values, longest, alike = items
        return cls(tuple(map(tuple, paths)), tuple(map(tuple, values)), longest, alike)


@lru_cache(maxsize=16384)
def trigger_index(expression: str) -> TriggerIndex | None:
    """The index of an expression; None if it must be evaluated for each event. Raises ExpressionError."""
    tree = compile_expression(expression, Scope.TRIGGER).tree
    parts = list(decisive_parts(tree))
    found: dict[Path, tuple[Node, list[Any]]] = {}
    for part, is_negated in parts:
        allowed = _allowed(part, is_negated)
        if allowed is None or len(allowed[1]) > _MOST_VALUES:
            continue
        event_path = _path_in_event(allowed[0])
        if event_path and (event_path not in found or len(allowed[1]) < len(found[event_path][1])):
            found[event_path] = allowed
    paths = _few_paths(found)
    if not paths:
        return None
    is_whole = len(parts) == len(paths)  # the index covers the whole expression
    longest = None if is_whole else evaluated_length(tree)
    alike = _dotted(found[paths[0]][0]) if is_whole and len(paths) == 1 else None
    values = _product([found[event_path][1] for event_path in paths])
    return TriggerIndex(paths, tuple(values), longest, alike)


def lookup_value(value: Any) -> Any:
    """A key for a scalar: the keys of two scalars are equal if CEL treats them as equal. NOTHING if not a scalar.

    Integers that cannot be represented as a double may share a key.
    """
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")  # the CEL library gets the same text
    if value is None:
        return None
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, int):
        return value if -_EXACT <= value <= _EXACT else int(float(value))
    return NOTHING


def value_at(event: Mapping[str, Any], event_path: Path) -> Any:
    """The key (`lookup_value`) of the scalar at a path in an event; NOTHING if there is no scalar."""
    value: Any = event
    for field in event_path:
        if not isinstance(value, dict) or field not in value:
            return NOTHING
        value = value[field]
    return lookup_value(value)


# --- reading the expression ------------------------------------------------------------------------------------------


def _allowed(node: Node, is_negated: bool) -> tuple[Node, list[Any]] | None:
    """The place that a part of an expression compares, and the constants for which the part is true.

    For parts such as `a == 1`, `a in [1, 2]` and `a == 1 || a == 2`; None for others.
    """
    if not isinstance(node, Call):
        return None
    if node.function == ("_!=_" if is_negated else "_==_"):
        for place, constant in (node.args, node.args[::-1]):
            if _is_usable(constant) and path(place):
                return place, [constant.value]  # type: ignore[union-attr]
    elif node.function == "@in" and not is_negated:
        place, options = node.args
        if _is_usable_list(options) and path(place):
            return place, [option.value for option in options.parts]  # type: ignore[union-attr]
    elif node.function == "_||_" and not is_negated:
        one, other = (_allowed(arg, is_negated=False) for arg in node.args)
        if one is not None and other is not None and one[0] == other[0]:
            return one[0], one[1] + other[1]
    return None


def _is_usable(node: Node) -> bool:
    if not isinstance(node, Const) or isinstance(node.value, bytes):
        return False
    return not isinstance(node.value, float) or isfinite(node.value)


def _is_usable_list(node: Node) -> bool:
    """Whether a node is a list of constants. Maps are excluded: CEL's `null in {...}` is an error and not false."""
    return isinstance(node, Items) and node.is_list and bool(node.parts) and all(map(_is_usable, node.parts))


def _path_in_event(node: Node) -> Path | None:
    """The path in the event's JSON. `event.data.kind` and `data.kind` have the same path."""
    found = path(node)
    if found is None:
        return None
    return found[1:] if found[0] == "event" else found


def _dotted(node: Node) -> str | None:
    """The text of a path that is written only with dots, else None. With brackets, errors have other messages."""
    if isinstance(node, Ident):
        return node.name
    if isinstance(node, Select) and not node.test_only:
        above = _dotted(node.operand)
        return None if above is None else f"{above}.{node.field}"
    return None


def _few_paths(found: dict[Path, tuple[Node, list[Any]]]) -> tuple[Path, ...]:
    """The paths to index, sorted: those with the fewest values, up to the limit of combinations."""
    paths: list[Path] = []
    for event_path in sorted(found, key=lambda pair: (len(found[pair][1]), pair))[:_MOST_PATHS]:
        if prod(len(found[pair][1]) for pair in [*paths, event_path]) <= _MOST_VALUES:
            paths.append(event_path)
    return tuple(sorted(paths))


def _product(options: list[list[Any]]) -> Iterator[Values]:
    if not options:
        yield ()
        return
    for first in options[0]:
        for rest in islice(_product(options[1:]), _MOST_VALUES):
            yield (first, *rest)

"""Which values at which places of an event a trigger's expression needs, so that it is found by them.

The law: if an event has other values there, the expression is false of it, and evaluating it says nothing else: no
error, and no other reason. Where an event has no value, or one that is no scalar, only evaluating tells.
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

_MOST_VALUES = 64  # combinations under which one expression is found
_MOST_PATHS = 4
_EXACT = 2**53  # from here on, not every integer is a double
NOTHING = object()

Values = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class TriggerIndex:
    """An expression is true only if the values at `paths` in the event are one of `values`. `longest`: an event whose
    JSON is longer than this many bytes may be too much to be evaluated at all, which evaluating tells; None: never.
    `alike`: expressions that have this in common say the same of an event without a scalar at the path."""

    paths: tuple[Path, ...]
    values: tuple[Values, ...]
    longest: int | None = None
    alike: str | None = None

    def as_json(self) -> list[Any]:
        return [self.paths, self.values, self.longest, self.alike]

    @classmethod
    def from_json(cls, items: list[Any]) -> TriggerIndex:
        """The inverse of `as_json`."""
        paths, values, longest, alike = items
        return cls(tuple(map(tuple, paths)), tuple(map(tuple, values)), longest, alike)


@lru_cache(maxsize=16384)
def trigger_index(expression: str) -> TriggerIndex | None:
    """How functions with this expression are found; None if it must be evaluated for each event. Raises
    ExpressionError."""
    tree = compile_expression(expression, Scope.TRIGGER).tree
    parts = list(decisive_parts(tree))
    found: dict[Path, tuple[Node, list[Any]]] = {}
    for part, is_negated in parts:
        allowed = _allowed(part, is_negated)
        if allowed is None or len(allowed[1]) > _MOST_VALUES:
            continue
        its_path = _in_event(allowed[0])
        if its_path and (its_path not in found or len(allowed[1]) < len(found[its_path][1])):
            found[its_path] = allowed
    paths = _few_paths(found)
    if not paths:
        return None
    is_whole = len(parts) == len(paths)  # there is nothing else in it
    longest = None if is_whole else evaluated_length(tree)
    alike = _written(found[paths[0]][0]) if is_whole and len(paths) == 1 else None
    values = _product([found[its_path][1] for its_path in paths])
    return TriggerIndex(paths, tuple(values), longest, alike)


def lookup_value(value: Any) -> Any:
    """Equal, and hashed equally, for scalars that CEL calls equal; NOTHING for what is no scalar. Of integers that are
    no double, several have one value."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")  # as the library is given it
    if value is None:
        return None
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, int):
        return value if -_EXACT <= value <= _EXACT else int(float(value))
    return NOTHING


def value_at(event: Mapping[str, Any], its_path: Path) -> Any:
    """The value to look up for a place in an event; NOTHING if there is no scalar."""
    value: Any = event
    for field in its_path:
        if not isinstance(value, dict) or field not in value:
            return NOTHING
        value = value[field]
    return lookup_value(value)


# --- what an expression needs ----------------------------------------------------------------------------------------


def _allowed(node: Node, is_negated: bool) -> tuple[Node, list[Any]] | None:
    """A place, and the constants of which a part needs one there: `a == 1`, `a in [1, 2]`, `a == 1 || a == 2`."""
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
    """A list; of a map, CEL's `in` does not say that null is not in it, but that this cannot be asked."""
    return isinstance(node, Items) and node.is_list and bool(node.parts) and all(map(_is_usable, node.parts))


def _in_event(node: Node) -> Path | None:
    """Where in the event's JSON a place is: `event.data.kind` and `data.kind` are the same."""
    its_path = path(node)
    if its_path is None:
        return None
    return its_path[1:] if its_path[0] == "event" else its_path


def _written(node: Node) -> str | None:
    """A place that is written with dots alone. Other ways of writing it have other words for what is missing."""
    if isinstance(node, Ident):
        return node.name
    if isinstance(node, Select) and not node.test_only:
        above = _written(node.operand)
        return None if above is None else f"{above}.{node.field}"
    return None


def _few_paths(found: dict[Path, tuple[Node, list[Any]]]) -> tuple[Path, ...]:
    """As many places as have few combinations, those with the fewest values first; sorted."""
    paths: list[Path] = []
    for its_path in sorted(found, key=lambda pair: (len(found[pair][1]), pair))[:_MOST_PATHS]:
        if prod(len(found[pair][1]) for pair in [*paths, its_path]) <= _MOST_VALUES:
            paths.append(its_path)
    return tuple(sorted(paths))


def _product(options: list[list[Any]]) -> Iterator[Values]:
    if not options:
        yield ()
        return
    for first in options[0]:
        for rest in islice(_product(options[1:]), _MOST_VALUES):
            yield (first, *rest)

"""Computes the keys by which waits and events find each other, from the equalities in a wait's `match`.

An equality compares a value of the incoming event with a value of the run. The invariant: for an event that matches,
the key of the wait equals the event's key for the same paths. A wait without a key is found by the event's name alone.
Equal keys are not sufficient: `match` is evaluated in the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from stepwell.core.cel.ast import Call, Const, Node, Path, conjuncts, path, walk
from stepwell.core.cel.ast import paths as paths_of
from stepwell.core.cel.equality import canonical, is_scalar
from stepwell.core.cel.expressions import Scope, compile_expression
from stepwell.core.run.answers import WaitKey

_KNOWN = ("event", "user", "data", "steps", "errors", "response")
_MISSING = object()


@dataclass(frozen=True, slots=True)
class WaitIndex:
    """The equalities of a `match`: `paths` into the incoming event, sorted, and for each one the value that it must be
    equal to (`known`): a path into the run's variables, or a constant."""

    paths: tuple[Path, ...]
    known: tuple[Path | Const, ...]

    @property
    def relates(self) -> bool:
        """Whether a value of the run is compared, not only constants."""
        return any(not isinstance(known, Const) for known in self.known)

    def key(self, event_name: str, variables: Mapping[str, Any]) -> WaitKey:
        """The key of a wait. `variables`: those of `match` for the run, without `async`."""
        values = []
        for known in self.known:
            value = known.value if isinstance(known, Const) else _value_at(variables, known)
            if value is _MISSING and not isinstance(known, Const):
                return WaitKey(None, f"there is no {_source(known)}")
            values.append(value)
        if not all(map(is_scalar, values)):
            return WaitKey(None)
        return WaitKey(_digest(event_name, self.paths, values))


@lru_cache(maxsize=4096)
def wait_index(match: str | None) -> WaitIndex | None:
    """How waits with this `match` are indexed; None if by the event's name alone. Raises ExpressionError."""
    if match is None:
        return None
    found: dict[Path, Path | Const] = {}
    for node in conjuncts(compile_expression(match, Scope.MATCH).tree):
        if not isinstance(node, Call) or node.function != "_==_":
            continue
        for one, other in (node.args, node.args[::-1]):
            incoming, known = path(one), _known(other)
            if incoming is None or incoming[0] != "async" or len(incoming) == 1 or known is None:
                continue
            # One equality for each path is sufficient. One with a value of the run is preferred to a constant.
            if isinstance(found.get(incoming[1:], known), Const) or incoming[1:] not in found:
                found[incoming[1:]] = known
    if not found:
        return None
    paths = tuple(sorted(found))
    return WaitIndex(paths, tuple(found[event_path] for event_path in paths))


def found_by_name(match: str) -> str | None:
    """None if a wait with this `match` is indexed by a value of the run; else the reason, for a warning.

    The reason is ` (...)`, or empty if there is no equality at all. Raises ExpressionError.
    """
    index = wait_index(match)
    if index is not None:
        return None if index.relates else " (it compares only with constants)"
    tree = compile_expression(match, Scope.MATCH).tree
    needed = list(conjuncts(tree))
    equalities = [node for node in walk(tree) if isinstance(node, Call) and node.function == "_==_" and _relates(node)]
    if any(node in needed for node in equalities):
        return " (both sides of `==` must be fields, and one is computed or an entry of a list)"
    if equalities:
        return " (the `==` is inside `||`, `!`, `? :` or a loop, and must stand alone or be joined with `&&`)"
    return ""


def _relates(equality: Call) -> bool:
    """Whether an equality has a field of the incoming event and a value of the run."""
    roots = {found[0] for side in equality.args for found in paths_of(side)}
    return "async" in roots and bool(roots & {*_KNOWN})


def event_key(event_name: str, paths: Sequence[Path], event: Mapping[str, Any]) -> bytes | None:
    """The key of an event for one set of paths; None if the event has no scalar at one of them."""
    values = [_value_at(event, event_path) for event_path in paths]
    return _digest(event_name, paths, values) if all(map(is_scalar, values)) else None


def holds_structure(paths: Sequence[Path], event: Mapping[str, Any]) -> bool:
    """Whether an event has a list or object at one of these paths. Only a wait without a key can be equal to that."""
    return any(isinstance(_value_at(event, event_path), list | dict) for event_path in paths)


def _known(node: Node) -> Path | Const | None:
    if isinstance(node, Const):
        return None if isinstance(node.value, bytes) else node
    found = path(node)
    return found if found is not None and found[0] in _KNOWN else None


def _value_at(variables: Mapping[str, Any], place: Path) -> Any:
    value: Any = variables
    for field in place:
        if not isinstance(value, Mapping) or field not in value:
            return _MISSING
        value = value[field]
    return value


def _digest(event_name: str, paths: Sequence[Path], values: Sequence[Any]) -> bytes:
    # `canonical` makes texts of whole numbers, because a large double can have more digits than orjson writes.
    document = orjson.dumps([event_name, paths, [canonical(value) for value in values]])
    return hashlib.blake2b(document, digest_size=16).digest()


def _source(place: Path) -> str:
    """A path in CEL, such as `steps['step-1'].total`."""
    return place[0] + "".join(f".{f}" if f.isidentifier() else f"[{f!r}]" for f in place[1:])

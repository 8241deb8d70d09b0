"""Where a wait is found: its `match` split into equalities of the incoming event with values the run knows.

The law: if `match` is true of an event, the wait's key equals the event's key for the same paths, or the wait has no
key and is found by the event's name alone. Equal keys prove nothing: `match` is evaluated in the end.
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
from stepwell.core.cel.expressions import Scope, compile_expression
from stepwell.core.run.messages import WaitKey

_KNOWN = ("event", "user", "data", "steps", "errors", "response")
_MISSING = object()
_EXACT = 2**53  # from here on, not every integer is a double


@dataclass(frozen=True, slots=True)
class WaitIndex:
    """`paths` into the incoming event, sorted; `known` gives each one's value: a path, or a constant."""

    paths: tuple[Path, ...]
    known: tuple[Path | Const, ...]

    @property
    def relates(self) -> bool:
        """Whether a value of the run is compared, and not only constants."""
        return any(not isinstance(known, Const) for known in self.known)

    def key(self, event_name: str, variables: Mapping[str, Any]) -> WaitKey:
        """Where a wait of a run with these variables (those of `match`, without `async`) is found."""
        values = []
        for known in self.known:
            value = known.value if isinstance(known, Const) else _value_at(variables, known)
            if value is _MISSING and not isinstance(known, Const):
                return WaitKey(None, f"{_written(known)} is not there")
            values.append(value)
        if not all(map(is_scalar, values)):
            return WaitKey(None)
        return WaitKey(_digest(event_name, self.paths, values))


@lru_cache(maxsize=4096)
def wait_index(match: str | None) -> WaitIndex | None:
    """How waits with this `match` are indexed; None if only the event's name tells. Raises ExpressionError."""
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
            # Of two equalities about one path, one is enough to find the wait by: rather the one about the run.
            if isinstance(found.get(incoming[1:], known), Const) or incoming[1:] not in found:
                found[incoming[1:]] = known
    if not found:
        return None
    paths = tuple(sorted(found))
    return WaitIndex(paths, tuple(found[its_path] for its_path in paths))


def found_by_name(match: str) -> str | None:
    """None if a wait with this `match` is found by a value of its run; else why it is found by its event's name alone,
    or by constants that all runs share: ` (...)`, or nothing if it has no equality at all. Raises ExpressionError."""
    index = wait_index(match)
    if index is not None:
        return None if index.relates else " (it compares with constants alone)"
    tree = compile_expression(match, Scope.MATCH).tree
    needed = list(conjuncts(tree))
    equalities = [node for node in walk(tree) if isinstance(node, Call) and node.function == "_==_" and _relates(node)]
    if any(node in needed for node in equalities):
        return " (one side of `==` is computed, or an entry of a list, and both must be fields)"
    if equalities:
        return " (its `==` stands in `||`, `!`, `? :` or a loop, and it must hold for itself)"
    return ""


def _relates(equality: Call) -> bool:
    """Whether it names the incoming event and something of the run."""
    roots = {named[0] for side in equality.args for named in paths_of(side)}
    return "async" in roots and bool(roots & {*_KNOWN})


def event_key(event_name: str, paths: Sequence[Path], event: Mapping[str, Any]) -> bytes | None:
    """The key of an event for one set of paths; None if the event has no scalar at one of them."""
    values = [_value_at(event, its_path) for its_path in paths]
    return _digest(event_name, paths, values) if all(map(is_scalar, values)) else None


def holds_structure(paths: Sequence[Path], event: Mapping[str, Any]) -> bool:
    """Whether an event has a list or map at one of these paths, which only a wait without a key can equal."""
    return any(isinstance(_value_at(event, its_path), list | dict) for its_path in paths)


def _known(node: Node) -> Path | Const | None:
    if isinstance(node, Const):
        return None if isinstance(node.value, bytes) else node
    its_path = path(node)
    return its_path if its_path is not None and its_path[0] in _KNOWN else None


def _value_at(variables: Mapping[str, Any], its_path: Path) -> Any:
    value: Any = variables
    for field in its_path:
        if not isinstance(value, Mapping) or field not in value:
            return _MISSING
        value = value[field]
    return value


def is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def canonical(value: Any) -> Any:
    """Equal for values that CEL calls equal: 1 and 1.0, 0.0 and -0.0; texts, booleans and null are themselves.

    The library compares an integer with a double as doubles: 2**53 + 1 equals 2.0**53, but not 2**53. So integers
    that are no double share a key with the double next to them.
    """
    if isinstance(value, float):
        return f"#{int(value)}" if value.is_integer() else [value]
    if isinstance(value, int) and not isinstance(value, bool):
        return f"#{value if -_EXACT <= value <= _EXACT else int(float(value))}"
    return [value]


def _digest(event_name: str, paths: Sequence[Path], values: Sequence[Any]) -> bytes:
    # Whole numbers stand there as texts, since as doubles they may have more digits than JSON has here.
    document = orjson.dumps([event_name, paths, [canonical(value) for value in values]])
    return hashlib.blake2b(document, digest_size=16).digest()


def _written(its_path: Path) -> str:
    """As it is written in CEL: steps['step-1'].total."""
    return its_path[0] + "".join(f".{f}" if f.isidentifier() else f"[{f!r}]" for f in its_path[1:])

"""Where a wait is found: its `match` split into equalities of the incoming event with values the run knows.

The law: if `match` is true of an event, the wait's key equals one of the event's keys, or the wait has no key and is
found by the event's name alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from stepwell.core.cel_ast import Call, Const, Node, Path, conjuncts, path
from stepwell.core.expressions import Scope, compile_expression
from stepwell.core.messages import WaitKey

_KNOWN = ("event", "user", "data", "steps", "errors", "response")
_MISSING = object()


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
        """Where a wait of a run with these variables is found."""
        values = []
        for known in self.known:
            value = known.value if isinstance(known, Const) else _value_at(variables, known)
            if value is _MISSING:
                return WaitKey(None, f"{'.'.join(known)} is not there" if isinstance(known, tuple) else "no value")
            if not _is_scalar(value):
                return WaitKey(None)
            values.append(_canonical(value))
        return WaitKey(_digest(event_name, self.paths, values))


@lru_cache(maxsize=4096)
def wait_index(match: str | None) -> WaitIndex | None:
    """How waits with this `match` are indexed; None if only the event's name tells."""
    if match is None:
        return None
    found: dict[Path, Path | Const] = {}
    for node in conjuncts(compile_expression(match, Scope.MATCH).tree):
        if isinstance(node, Call) and node.function == "_==_":
            left, right = node.args
            for one, other in ((left, right), (right, left)):
                incoming, known = path(one), _known(other)
                if incoming is not None and incoming[0] == "async" and len(incoming) > 1 and known is not None:
                    # Of two equalities about one path, one is enough to find the wait by.
                    if incoming[1:] not in found or isinstance(found[incoming[1:]], Const):
                        found[incoming[1:]] = known
                    break
    if not found:
        return None
    paths = tuple(sorted(found))
    return WaitIndex(paths, tuple(found[p] for p in paths))


def event_key(event_name: str, paths: Sequence[Path], event: Mapping[str, Any]) -> bytes | None:
    """The key of an event for one set of paths; None if the event has no scalar at one of them."""
    values = []
    for its_path in paths:
        value = _value_at(event, its_path)
        if value is _MISSING or not _is_scalar(value):
            return None
        values.append(_canonical(value))
    return _digest(event_name, paths, values)


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


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


def _canonical(value: Any) -> Any:
    """1 and 1.0 are one value to CEL, as are 0.0 and -0.0; texts, booleans and null are themselves."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _digest(event_name: str, paths: Sequence[Path], values: Sequence[Any]) -> bytes:
    # A float that is whole may be an integer of any size, which JSON texts here cannot hold: it goes in as a text.
    parts = [f"#{value}" if type(value) is int else [value] for value in values]
    return hashlib.blake2b(orjson.dumps([event_name, paths, parts]), digest_size=16).digest()

"""JSON data as the CEL library takes and gives it."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any


def only(value: Any, paths: Sequence[Sequence[str]]) -> Any:
    """The parts of a value that some paths lead to."""
    if not isinstance(value, dict) or not all(paths):
        return value
    below: dict[str, list[Sequence[str]]] = {}
    for its in paths:
        below.setdefault(its[0], []).append(its[1:])
    return {name: only(value[name], rest) for name, rest in below.items() if name in value}


def without_nul(value: Any) -> Any:
    """A copy with U+FFFD for each NUL; without recursion: a body may be nested more deeply than Python's calls."""
    todo: list[Any] = [top := [value]]
    while todo:
        its = todo.pop()
        if isinstance(its, dict):
            entries = [(_copied(name), _copied(inner)) for name, inner in its.items()]
            its.clear()
            its.update(entries)
        else:
            its[:] = map(_copied, its)
        todo += [inner for inner in (its.values() if isinstance(its, dict) else its) if isinstance(inner, dict | list)]
    return top[0]


def _copied(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    return value.copy() if isinstance(value, dict | list) else value


def is_json(value: Any) -> bool:
    todo = [value]
    while todo:
        its = todo.pop()
        if isinstance(its, dict):
            if not all(isinstance(key, str) for key in its):
                return False
            todo += its.values()
        elif isinstance(its, list):
            todo += its
        elif isinstance(its, float):
            if not isfinite(its):
                return False
        elif its is not None and not isinstance(its, bool | int | str):
            return False
    return True

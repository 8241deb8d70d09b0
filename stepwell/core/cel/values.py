"""Converts JSON data for the CEL library, and checks data that comes back."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any


def keep_paths(value: Any, paths: Sequence[Sequence[str]]) -> Any:
    """A copy of a value with only the parts at the given paths."""
    if not isinstance(value, dict) or not all(paths):
        return value
    below: dict[str, list[Sequence[str]]] = {}
    for path in paths:
        below.setdefault(path[0], []).append(path[1:])
    return {name: keep_paths(value[name], rest) for name, rest in below.items() if name in value}


def without_nul(value: Any) -> Any:
    """A copy with U+FFFD in place of each NUL.

    Not recursive: a body may be nested more deeply than Python's calls.
    """
    todo: list[Any] = [top := [value]]
    while todo:
        found = todo.pop()
        if isinstance(found, dict):
            entries = [(_copied(name), _copied(inner)) for name, inner in found.items()]
            found.clear()
            found.update(entries)
        else:
            found[:] = map(_copied, found)
        todo += [
            inner for inner in (found.values() if isinstance(found, dict) else found) if isinstance(inner, dict | list)
        ]
    return top[0]


def _copied(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    return value.copy() if isinstance(value, dict | list) else value


def is_json(value: Any) -> bool:
    """Whether a value from the library can be written as JSON."""
    todo = [value]
    while todo:
        found = todo.pop()
        if isinstance(found, dict):
            if not all(isinstance(key, str) for key in found):
                return False
            todo += found.values()
        elif isinstance(found, list):
            todo += found
        elif isinstance(found, float):
            if not isfinite(found):
                return False
        elif found is not None and not isinstance(found, bool | int | str):
            return False
    return True

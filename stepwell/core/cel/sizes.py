"""How large values are.

One rule: measured by their JSON, which tells a little more than there is, and is a hundred times as fast as a walk.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import orjson

from stepwell.core.cel.ast import Path

_FEW = 2000


@dataclass(frozen=True, slots=True)
class Size:
    """How large a value is that an evaluation has several times: the largest, and all of them together. `nodes`: values
    in it, with itself; `characters`: of its texts; `entries`: of the list or object itself; `containers`: lists and
    objects in it."""

    nodes: float
    characters: float
    entries: float
    all_nodes: float
    all_characters: float
    is_object: bool = False
    containers: float = 0

    def times(self, times: float) -> Size:
        return Size(
            self.nodes, self.characters, self.entries, self.nodes * times, self.characters * times, self.is_object
        )

    def within(self, rounds: float, each: float) -> Size:
        """In a loop that goes `rounds` rounds in all, at most `each` of them for one of these values."""
        nodes = min(self.nodes * rounds, self.all_nodes * each)
        characters = min(self.characters * rounds, self.all_characters * each)
        return Size(self.nodes, self.characters, self.entries, nodes, characters, self.is_object)


def one(nodes: float, characters: float, entries: float, *, is_object: bool = False, containers: float = 0) -> Size:
    """Of a value that is there once."""
    return Size(nodes, characters, entries, nodes, characters, is_object, containers)


class Measured:
    """The sizes of these values, and of what is in them."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values
        self.size, self.largest_entry = cache(self._size), cache(self._largest_entry)

    def _size(self, at: Path) -> Size:
        """Of what a path leads to."""
        return size_of(self._at(at))

    def _largest_entry(self, at: Path) -> Size:
        """Of the largest entry of the list there, or key of the object."""
        return largest_of(self._at(at))

    def _at(self, at: Path) -> Any:
        """None for what is not there, which is an error to the library."""
        value: Any = self._values
        for field in at:
            value = value.get(field) if isinstance(value, dict) else None
        return value


def json_of(value: Any) -> bytes | None:
    """None for what is no JSON, or nested deeply."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return None


def size_of(value: Any) -> Size:
    entries, is_object = (len(value) if isinstance(value, dict | list) else 0), isinstance(value, dict)
    text = json_of(value)
    if text is None:
        nodes, characters, containers = _counted(value)
    else:
        containers = text.count(b"[") + text.count(b"{")
        nodes, characters = 1 + text.count(b",") + containers, len(text)
    return one(nodes, characters, entries, is_object=is_object, containers=containers)


def largest_of(value: Any) -> Size:
    """The size of the largest entry of a list, or key of an object."""
    if not isinstance(value, dict | list) or not value:
        return one(1, 0, 0)
    if all(not isinstance(entry, dict | list) for entry in value):
        return one(1, max((len(entry) for entry in value if isinstance(entry, str)), default=0), 0)
    texts = [json_of(entry) or b"" for entry in value] if len(value) <= _FEW else []
    if not texts or not all(texts):  # it would take too long to tell, or cannot be told so: all of it is as large
        return size_of(value)
    length = max(map(len, texts))
    return one(1 + length / 2, length, length / 2)


def _counted(value: Any) -> tuple[int, int, int]:
    """Values, characters, and lists and objects; without recursion, since it may be nested deeply."""
    nodes = characters = containers = 0
    todo = [value]
    while todo:
        inner = todo.pop()
        nodes += 1
        if isinstance(inner, dict | list):
            containers += 1
            todo += [*inner, *inner.values()] if isinstance(inner, dict) else inner
        elif isinstance(inner, str):
            characters += len(inner)
    return nodes, characters, containers

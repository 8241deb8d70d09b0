"""Whether two schemas say the same, so that what cannot be compared need not be if it did not change.

One rule: only the text counts, with what `$ref`s lead to in its place; what says nothing of values is passed over.
"""

from __future__ import annotations

from typing import Any

from stepwell.event_types.schema import Place, child_keywords

_SAYS_NOTHING = frozenset(
    {"$schema", "$id", "$anchor", "$comment", "$defs", "definitions", "title", "description", "default", "examples",
     "deprecated", "readOnly", "writeOnly"}
)  # fmt: skip


class Sameness:
    """Whether the schemas at two places are the same; what would take too long to find out is not."""

    def __init__(self, effort: int = 100_000) -> None:
        """`effort`: the most pairs of schemas that are looked at in all."""
        self._left = effort
        self._known: dict[tuple[Place, Place], bool] = {}

    def __call__(self, one: Place, other: Place) -> bool:
        pair = (one, other)
        if pair not in self._known:
            self._known[pair] = self._are_same(pair)
        return self._known[pair]

    def _are_same(self, pair: tuple[Place, Place]) -> bool:
        seen: set[tuple[Place, Place]] = set()
        todo = [pair]
        while todo:
            pair = todo.pop()
            if pair in seen or pair[0] == pair[1]:
                continue
            seen.add(pair)
            self._left -= 1
            below = _pairs(*pair) if self._left > 0 else None
            if below is None:
                return False
            todo += below
        return True


def _pairs(one: Place, other: Place) -> list[tuple[Place, Place]] | None:
    """The schemas in two places that must be the same for these to be; None if they differ without them."""
    if not isinstance(one.schema, dict) or not isinstance(other.schema, dict):
        return [] if one.schema is other.schema else None
    words = _words(one.schema)
    if words != _words(other.schema):
        return None
    found: list[tuple[Place, Place]] = []
    for word in words:
        pairs = _pairs_of(word, one, other)
        if pairs is None:
            return None
        found += pairs
    return found


def _words(schema: dict[str, Any]) -> set[str]:
    return {word for word in schema if word not in _SAYS_NOTHING and not word.startswith("x-")}


def _pairs_of(word: str, one: Place, other: Place) -> list[tuple[Place, Place]] | None:
    if word == "$ref":
        to, place = one.document.target(one.get("$ref")), other.document.target(other.get("$ref"))
        return None if to is None or place is None else [(to, place)]
    here, there = child_keywords(one, word), child_keywords(other, word)
    if here is None or there is None:
        return [] if here is there and _plain(one.get(word)) == _plain(other.get(word)) else None
    return [(here[way], there[way]) for way in here] if here.keys() == there.keys() else None


def _plain(value: Any) -> Any:
    """Values as Python compares them, but true is not 1."""
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value

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


def same(one: Place, other: Place) -> bool:
    """Whether the schemas at two places are the same."""
    return one == other or _same(one, other, set())


def _same(one: Place, other: Place, seen: set[tuple[Place, Place]]) -> bool:
    if (one, other) in seen:
        return True
    seen.add((one, other))
    if not isinstance(one.schema, dict) or not isinstance(other.schema, dict):
        return one.schema is other.schema
    words = _words(one.schema)
    if words != _words(other.schema):
        return False
    return all(_same_keyword(word, one, other, seen) for word in words)


def _words(schema: dict[str, Any]) -> set[str]:
    return {word for word in schema if word not in _SAYS_NOTHING and not word.startswith("x-")}


def _same_keyword(word: str, one: Place, other: Place, seen: set[tuple[Place, Place]]) -> bool:
    if word == "$ref":
        to, its = one.document.target(one.get("$ref")), other.document.target(other.get("$ref"))
        return to is not None and its is not None and (to == its or _same(to, its, seen))
    here, there = child_keywords(one, word), child_keywords(other, word)
    if here is None or there is None:
        return here is there and _plain(one.get(word)) == _plain(other.get(word))
    if here.keys() != there.keys():
        return False
    return all(_same(here[way], there[way], seen) for way in here)


def _plain(value: Any) -> Any:
    """Values as Python compares them, but true is not 1."""
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value

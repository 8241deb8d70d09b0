"""Compares schemas by a canonical text: two schemas with equal texts accept the same values.

Annotations are left out, and each `$ref` is replaced by the schema that it refers to. Nothing else is simplified, so
schemas that accept the same values may have different texts.
"""

from __future__ import annotations

import json
from typing import Any

from stepwell.event_types.schema import Place, child_keywords

_ANNOTATIONS = frozenset(
    {"$schema", "$id", "$anchor", "$comment", "$defs", "definitions", "title", "description", "default", "examples",
     "deprecated", "readOnly", "writeOnly"}
)  # fmt: skip
_MAX_SCHEMAS = 100_000
_Words = tuple[str, ...] | None


class SchemaTexts:
    """The cached texts of schemas. The work is limited; a schema beyond the limit has no text, and equals no other."""

    def __init__(self) -> None:
        self._left = _MAX_SCHEMAS
        self._texts: dict[tuple[Place, _Words], str | None] = {}

    def are_equal(self, place: Place, other: Place, keywords: _Words = None) -> bool:
        """Whether two schemas have the same text. `keywords`: compare only these."""
        text = self._text(place, keywords)
        return text is not None and text == self._text(other, keywords)

    def _text(self, place: Place, keywords: _Words) -> str | None:
        if (place, keywords) not in self._texts:
            graph = _Graph(place, keywords, self._left)
            self._left = graph.left
            self._texts[place, keywords] = json.dumps(graph.schemas, sort_keys=True) if graph.left > 0 else None
        return self._texts[place, keywords]


class _Graph:
    """All schemas that can be reached from one, with each `$ref` replaced by the number of the target."""

    def __init__(self, start: Place, keywords: _Words, most: int) -> None:
        self.left = most
        self._places = [start]
        self._numbers: dict[Place, int] = {}
        self.schemas: list[Any] = []
        for place in self._places:  # the list grows during the loop
            self.schemas.append(self._plain(place, None if self.schemas else keywords))

    def _plain(self, place: Place, keywords: _Words = None) -> Any:
        self.left -= 1
        if isinstance(place.schema, bool) or self.left <= 0:
            return place.schema
        plain: list[Any] = []
        for word in sorted(place.schema):
            if word in _ANNOTATIONS or word.startswith("x-") or (keywords is not None and word not in keywords):
                continue
            children = child_keywords(place, word)
            if children is not None:
                plain.append([word, [[*way, self._plain(child)] for way, child in sorted(children.items())]])
            elif word == "$ref":
                plain.append([word, self._number(place.document.target(place.schema[word]))])
            else:
                plain.append([word, place.schema[word]])
        return plain

    def _number(self, target: Place | None) -> int | None:
        if target is not None and target not in self._numbers:
            self._numbers[target] = len(self._places)
            self._places.append(target)
        return self._numbers.get(target) if target is not None else None

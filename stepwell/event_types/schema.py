"""JSON Schemas (2020-12) as documents: iterates the schemas in them, and resolves `$ref`s.

A `$ref` can only refer to a place in the same document; nothing is ever fetched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from stepwell.core.definition.problems import Pointer

if TYPE_CHECKING:
    import jsonschema_rs

Schema = dict[str, Any] | bool

DIALECT = "https://json-schema.org/draft/2020-12/schema"
EMBEDDED = "urn:stepwell:event-type"  # the `$id` of an embedded schema, so that the refs in it stay valid
POLICY = "x-stepwell-policy"  # a keyword that sets the policy for invalid events

# The keywords that contain other schemas. _IN_PLACE: those whose schemas apply to the same value.
ONE_SCHEMA = frozenset({"additionalProperties", "unevaluatedProperties", "propertyNames", "items", "unevaluatedItems",
                  "contains", "not", "if", "then", "else", "contentSchema"})  # fmt: skip
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
MAPS_OF_SCHEMAS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_IN_PLACE = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas"})


class Document:
    """A whole schema, in which `$ref`s are resolved."""

    def __init__(self, root: Schema) -> None:
        self.root = Place(self, (), root)
        self._anchors: dict[str, Place] | None = None
        self._embedded: Document | None = None
        self._validators: dict[Pointer, Any] = {}

    def target(self, ref: str) -> Place | None:
        """The place that a `$ref` refers to; None if it is not in this document, or not a schema."""
        if ref.startswith(EMBEDDED):
            return self._inside().target(ref.removeprefix(EMBEDDED) or "#")
        if ref.startswith("#") and (ref == "#" or ref[1] == "/"):
            return self._at(ref[2:].split("/") if len(ref) > 1 else [])
        if self._anchors is None:
            self._anchors = {
                place.schema["$anchor"]: place
                for place in places(self)
                if isinstance(place.schema, dict) and isinstance(place.schema.get("$anchor"), str)
            }
        return self._anchors.get(ref[1:]) if ref.startswith("#") else None

    def is_valid(self, place: Place, value: Any) -> bool:
        """Whether a value is valid under the schema at a place of this document."""
        pointer = place.pointer
        if pointer not in self._validators:
            schema = place.schema
            if '"$ref"' in json.dumps(schema):  # a `$ref` needs the whole document
                schema = {
                    "$ref": f"{EMBEDDED}#{quote(json_pointer(pointer))}",
                    "$defs": {"whole": embedded(self.root.schema)},
                }
            self._validators[pointer] = validator(schema)
        return bool(self._validators[pointer].is_valid(value))

    def _inside(self) -> Document:
        """The schema that `described.event_schema` has embedded in this one."""
        if self._embedded is None:
            definitions = self.root.get("$defs") or {}
            value = next((s for s in definitions.values() if isinstance(s, dict) and s.get("$id") == EMBEDDED), True)
            self._embedded = Document(value)
        return self._embedded

    def _at(self, parts: list[str]) -> Place | None:
        value: Any = self.root.schema
        pointer: list[str | int] = []
        for part in (unquote(part).replace("~1", "/").replace("~0", "~") for part in parts):
            if isinstance(value, dict) and part in value:
                pointer.append(part)
                value = value[part]
            elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
                pointer.append(int(part))
                value = value[int(part)]
            else:
                return None
        return Place(self, tuple(pointer), value) if isinstance(value, dict | bool) else None


@dataclass(frozen=True, slots=True)
class Place:
    """A schema in a document."""

    document: Document
    pointer: Pointer
    schema: Schema = field(compare=False)

    def child(self, *way: str | int) -> Place:
        value: Any = self.schema
        for part in way:
            value = value[part]
        return Place(self.document, (*self.pointer, *way), value)

    def get(self, keyword: str) -> Any:
        return self.schema.get(keyword) if isinstance(self.schema, dict) else None


def places(document: Document) -> Iterator[Place]:
    """Yields every schema in a document, the root first."""
    todo = [document.root]
    while todo:
        place = todo.pop()
        yield place
        todo += [child for _, child in reversed(list(_children(place)))]


def child_keywords(place: Place, keyword: str) -> dict[Pointer, Place] | None:
    """The schemas under one keyword, by the pointer below it; None for a keyword that contains no schemas."""
    if keyword not in ONE_SCHEMA | _LISTS | MAPS_OF_SCHEMAS:
        return None
    cut = len(place.pointer) + 1
    return {child.pointer[cut:]: child for word, child in _children(place) if word == keyword}


def conjunction(place: Place) -> tuple[Place, ...]:
    """The place and all schemas that apply together with it, through `$ref` and `allOf`, recursively."""
    found: dict[Place, None] = {}
    todo = [place]
    while todo:
        current = todo.pop()
        if current in found:
            continue
        found[current] = None
        if isinstance(current.schema, dict):
            todo += [current.child("allOf", i) for i in reversed(range(len(current.schema.get("allOf", []))))]
            ref = current.schema.get("$ref")
            target = current.document.target(ref) if isinstance(ref, str) else None
            todo += [target] if target else []
    return tuple(found)


def json_pointer(pointer: Pointer) -> str:
    """The JSON pointer (RFC 6901) of a place, such as /properties/amount."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in pointer)


def validator(schema: Schema) -> jsonschema_rs.Draft202012Validator:
    """A validator that fetches nothing, and matches patterns in linear time. `format` is only an annotation.

    Raises jsonschema_rs.ValidationError for a pattern that cannot be matched in linear time.
    """
    import jsonschema_rs  # imported late: most projects have no types

    linear = jsonschema_rs.RegexOptions(size_limit=1_000_000, dfa_size_limit=2_000_000)
    return jsonschema_rs.Draft202012Validator(schema, offline=True, validate_formats=False, pattern_options=linear)


def same_value(place: Place) -> list[Place]:
    """The schemas that a schema applies to the same value."""
    found = [child for keyword, child in _children(place) if keyword in _IN_PLACE]
    ref = place.get("$ref")
    target = place.document.target(ref) if isinstance(ref, str) else None
    return [*found, target] if target else found


def _children(place: Place) -> Iterator[tuple[str, Place]]:
    """Yields the schemas directly in this one, with their keyword."""
    if not isinstance(place.schema, dict):
        return
    for keyword, value in place.schema.items():
        if keyword in ONE_SCHEMA and isinstance(value, dict | bool):
            yield keyword, place.child(keyword)
        elif keyword in _LISTS and isinstance(value, list):
            yield from ((keyword, place.child(keyword, i)) for i, v in enumerate(value) if isinstance(v, dict | bool))
        elif keyword in MAPS_OF_SCHEMAS and isinstance(value, dict):
            yield from ((keyword, place.child(keyword, k)) for k, v in value.items() if isinstance(v, dict | bool))


def embedded(schema: Schema) -> dict[str, Any]:
    """The schema in a form that can be embedded in another, and referred to by `{"$ref": EMBEDDED}`."""
    return {"$schema": DIALECT, **(schema if isinstance(schema, dict) else {}), "$id": EMBEDDED}

"""What all of event types ask of a JSON Schema (2020-12): is it one, what of an event does it describe, and its places.

One rule: a schema stands alone. A `$ref` leads to a place in the same schema, and nothing is ever fetched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, unquote

from stepwell.core.definition.problems import Pointer, Problem, shown

if TYPE_CHECKING:
    import jsonschema_rs

Schema = dict[str, Any] | bool

DIALECT = "https://json-schema.org/draft/2020-12/schema"
POLICY = "x-stepwell-policy"  # what happens to an event that is not valid; may stand in a schema
POLICIES = ("reject", "warn", "off")
_DEEPEST = 64
_MOST_PLACES = 10_000
_TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
_ENVELOPE = frozenset({"name", "data", "user", "id", "ts", "v"})

# Where a schema holds other schemas. IN_PLACE: those that look at the same value as the schema they stand in.
ONE_SCHEMA = frozenset({"additionalProperties", "unevaluatedProperties", "propertyNames", "items", "unevaluatedItems",
                  "contains", "not", "if", "then", "else", "contentSchema"})  # fmt: skip
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
MAPS_OF_SCHEMAS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_IN_PLACE = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas"})


class Document:
    """A whole schema, to which `$ref`s lead."""

    def __init__(self, root: Schema) -> None:
        self.root = Place(self, (), root)
        self._anchors: dict[str, Place] | None = None
        self._embedded: Document | None = None
        self._validators: dict[Pointer, Any] = {}

    def target(self, ref: str) -> Place | None:
        """The place that a `$ref` means; None if it is not in this document, or is no schema."""
        if ref.startswith(_EMBEDDED):
            return self._inside().target(ref.removeprefix(_EMBEDDED) or "#")
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
            if '"$ref"' in json.dumps(schema):  # else what stands around it does not matter
                schema = {
                    "$ref": f"{_EMBEDDED}#{quote(json_pointer(pointer))}",
                    "$defs": {"whole": _embedded(self.root.schema)},
                }
            self._validators[pointer] = validator(schema)
        return bool(self._validators[pointer].is_valid(value))

    def _inside(self) -> Document:
        """The schema that `data_schema` or `event_schema` has put into this one."""
        if self._embedded is None:
            definitions = self.root.get("$defs") or {}
            value = next((s for s in definitions.values() if isinstance(s, dict) and s.get("$id") == _EMBEDDED), True)
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
    """Every schema in a document, itself first."""
    todo = [document.root]
    while todo:
        place = todo.pop()
        yield place
        todo += [child for _, child in reversed(list(_children(place)))]


def child_keywords(place: Place, keyword: str) -> dict[Pointer, Place] | None:
    """The schemas under one keyword, by their way from it; None for a keyword that holds no schemas."""
    if keyword not in ONE_SCHEMA | _LISTS | MAPS_OF_SCHEMAS:
        return None
    cut = len(place.pointer) + 1
    return {child.pointer[cut:]: child for word, child in _children(place) if word == keyword}


def conjunction(place: Place) -> tuple[Place, ...]:
    """The place and all that holds with it: what its `$ref` and `allOf` lead to, theirs, and so on."""
    found: dict[Place, None] = {}
    todo = [place]
    while todo:
        here = todo.pop()
        if here in found:
            continue
        found[here] = None
        if isinstance(here.schema, dict):
            todo += [here.child("allOf", i) for i in reversed(range(len(here.schema.get("allOf", []))))]
            ref = here.schema.get("$ref")
            target = here.document.target(ref) if isinstance(ref, str) else None
            todo += [target] if target else []
    return tuple(found)


def json_pointer(pointer: Pointer) -> str:
    """A place as RFC 6901 writes it: /properties/amount."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in pointer)


def validator(schema: Schema) -> jsonschema_rs.Draft202012Validator:
    """A validator that fetches nothing, and matches patterns in linear time. `format` is an annotation, as the
    specification has it. Raises jsonschema_rs.ValidationError for a pattern that cannot be matched so."""
    import jsonschema_rs  # most projects have no types

    linear = jsonschema_rs.RegexOptions(size_limit=1_000_000, dfa_size_limit=2_000_000)
    return jsonschema_rs.Draft202012Validator(schema, offline=True, validate_formats=False, pattern_options=linear)


# --- what it describes -----------------------------------------------------------------------------------------------


def describes(schema: Schema) -> Literal["data", "event"]:
    """What of an event a schema is about: its `data`, or the whole of it.

    The whole event, if the schema's properties are those of an event: `name`, `data` (an object), and nothing but
    name, data, user, id, ts, v. So both the files `<name>.<v>.schema.json` and Inngest's triggers are understood.
    """
    document = Document(schema)
    properties: dict[str, Place] = {}
    for place in conjunction(document.root):
        properties |= {name: place.child("properties", name) for name in place.get("properties") or {}}
    if not {"name", "data"} <= properties.keys() <= _ENVELOPE:
        return "data"
    types = [place.get("type") for place in conjunction(properties["data"])]
    return "data" if any(t is not None and t != "object" and "object" not in t for t in types) else "event"


def data_schema(schema: Schema) -> Schema:
    """The schema of the event's `data`, whatever `schema` describes."""
    if describes(schema) == "data" or not isinstance(schema, dict):
        return schema
    document = Document(schema)
    found = [p.child("properties", "data") for p in conjunction(document.root) if "data" in (p.get("properties") or {})]
    refs = [{"$ref": f"{_EMBEDDED}#{json_pointer(place.pointer)}"} for place in found]
    return {**(refs[0] if len(refs) == 1 else {"allOf": refs}), "$defs": {"event": _embedded(schema)}}


def event_schema(schema: Schema) -> Schema:
    """The schema of the whole event, whatever `schema` describes."""
    if describes(schema) == "event":
        return schema
    if not isinstance(schema, dict):
        return {"properties": {"data": schema}}
    return {"properties": {"data": {"$ref": _EMBEDDED}}, "$defs": {"data": _embedded(schema)}}


_EMBEDDED = "urn:stepwell:event-type"  # an id of its own, so that the refs in the schema stay those into itself


def _embedded(schema: Schema) -> dict[str, Any]:
    return {"$schema": DIALECT, **(schema if isinstance(schema, dict) else {}), "$id": _EMBEDDED}


# --- whether it is one -----------------------------------------------------------------------------------------------


def refusals(schema: object) -> list[Problem]:
    """Why this cannot be the schema of an event, each reason with its place; empty if it can."""
    if not isinstance(schema, dict | bool):
        return [Problem((), f'a schema is an object such as {{"type": "object"}}, not {shown(schema)}')]
    if too_deep := _too_deep(schema):
        return [too_deep]
    dialect = schema.get("$schema", DIALECT) if isinstance(schema, dict) else DIALECT
    if not isinstance(dialect, str) or dialect.rstrip("#") != DIALECT:
        message = f"$schema is {shown(dialect)}, and event types are JSON Schema 2020-12; write {DIALECT}"
        return [Problem(("$schema",), message)]
    errors = islice(validator({"$ref": DIALECT}).iter_errors(schema), 1000)
    found = dict.fromkeys(Problem(tuple(error.instance_path), _in_words(error)) for error in errors)
    return list(found)[:100] or _unfit(Document(schema)) or _unusable(schema)


def _in_words(error: jsonschema_rs.ValidationError) -> str:
    if error.instance_path[-1:] == ["type"]:
        return f"type is one of {', '.join(_TYPES)}, or a list of these, not {shown(error.instance)}"
    return error.message[:300]


def _unusable(schema: Schema) -> list[Problem]:
    try:
        validator(schema)
    except ValueError as error:
        path = tuple(getattr(error, "instance_path", ()))
        message = str(getattr(error, "message", error)).partition("\n")[0][:300]
        if 'is not a "regex"' in message:
            message = "cannot be matched in linear time; leave out lookaround, backreferences and large counts"
        return [Problem(path, message)]
    return []


def _too_deep(schema: Schema) -> Problem | None:
    todo: list[tuple[Any, Pointer]] = [(schema, ())]
    seen = 0
    while todo:
        value, pointer = todo.pop()
        seen += 1
        if len(pointer) > _DEEPEST:
            return Problem(pointer[:3], f"is nested more than {_DEEPEST} deep; give its parts names under $defs")
        if seen > _MOST_PLACES * 10:
            return Problem((), "is too large to be the schema of an event; leave out what no reader needs")
        if isinstance(value, float) and not isfinite(value):
            return Problem(pointer, "is too large for a number")
        if isinstance(value, dict):
            todo += [(child, (*pointer, key)) for key, child in value.items()]
        elif isinstance(value, list):
            todo += [(child, (*pointer, i)) for i, child in enumerate(value)]
    return None


def _unfit(document: Document) -> list[Problem]:
    """What the specification allows, and an event's schema may not have."""
    everywhere = dict.fromkeys(places(document))
    if len(everywhere) > _MOST_PLACES:
        return [Problem((), f"has more than {_MOST_PLACES:,} schemas in it; leave out what no reader needs")]
    found: list[Problem] = []
    for place in everywhere:
        for keyword in ("$ref", "$dynamicRef"):
            if isinstance(ref := place.get(keyword), str):
                found += _wrong_ref(place, keyword, ref, everywhere)
        if place.pointer and place.get("$id") is not None:
            message = "an $id inside a schema changes what its $refs mean; remove it, and use $anchor or #/$defs/..."
            found.append(Problem((*place.pointer, "$id"), message))
    policy = document.root.get(POLICY)
    if policy is not None and policy not in POLICIES:
        found.append(Problem((POLICY,), f"{POLICY} is one of {', '.join(POLICIES)}, not {shown(policy)}"))
    return found or _circles(everywhere)


def _wrong_ref(place: Place, keyword: str, ref: str, everywhere: dict[Place, None]) -> Iterator[Problem]:
    at = (*place.pointer, keyword)
    if keyword == "$dynamicRef":
        yield Problem(at, "$dynamicRef is not available for events; use $ref")
    elif not ref.startswith("#"):
        message = f"{shown(ref)} leads out of the schema, and nothing is fetched; put it under $defs: #/$defs/..."
        yield Problem(at, message)
    elif place.document.target(ref) not in everywhere:
        yield Problem(at, f"{shown(ref)} leads to no schema; name one that is there, as in #/$defs/address")


def _circles(everywhere: dict[Place, None]) -> list[Problem]:
    """A schema that needs itself for the same value: no validator comes to an end with it."""
    state: dict[Place, bool] = {}  # False while on the way, True when left for good
    for start in everywhere:
        todo = [(start, False)]
        while todo:
            place, leaving = todo.pop()
            if leaving:
                state[place] = True
            elif state.get(place) is False:
                return [Problem(place.pointer, "refers to itself without going into a field; no value can be checked")]
            elif place not in state:
                state[place] = False
                todo.append((place, True))
                todo += [(child, False) for child in same_value(place) if state.get(child) is not True]
    return []


def same_value(place: Place) -> list[Place]:
    """The schemas that one in this place leads to for the value that it is held against itself."""
    found = [child for keyword, child in _children(place) if keyword in _IN_PLACE]
    ref = place.get("$ref")
    target = place.document.target(ref) if isinstance(ref, str) else None
    return [*found, target] if target else found


def _children(place: Place) -> Iterator[tuple[str, Place]]:
    """The schemas that stand directly in this one, with the keyword they stand under."""
    if not isinstance(place.schema, dict):
        return
    for keyword, value in place.schema.items():
        if keyword in ONE_SCHEMA and isinstance(value, dict | bool):
            yield keyword, place.child(keyword)
        elif keyword in _LISTS and isinstance(value, list):
            yield from ((keyword, place.child(keyword, i)) for i, v in enumerate(value) if isinstance(v, dict | bool))
        elif keyword in MAPS_OF_SCHEMAS and isinstance(value, dict):
            yield from ((keyword, place.child(keyword, k)) for k, v in value.items() if isinstance(v, dict | bool))

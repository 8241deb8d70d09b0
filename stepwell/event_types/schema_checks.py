"""Whether a JSON value can be the schema of an event, and if not, why not, with places."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from math import isfinite
from typing import Any

from stepwell.core.definition.problems import Pointer, Problem, shown
from stepwell.event_types.schema import (
    DIALECT,
    POLICY,
    Document,
    Place,
    Schema,
    child_keywords,
    places,
    same_value,
    validator,
)

POLICIES = ("reject", "warn", "off")
_DEEPEST = 64
_MOST_PLACES = 10_000
_MOST_ERRORS = 1000
_MOST_TOLD = 100
_LONGEST = 300  # characters of a message, which may quote the schema
_TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")


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
    return _malformed(document := Document(schema)) or _unfit(document) or _unusable(schema)


def _malformed(document: Document) -> list[Problem]:
    """What is no schema by the specification. jsonschema-rs finds the places, jsonschema the words."""
    errors = islice(validator({"$ref": DIALECT}).iter_errors(document.root.schema), _MOST_ERRORS)
    wrong: dict[Pointer, str] = {tuple(error.instance_path): error.message for error in errors}
    if not wrong:
        return []
    by_pointer = {place.pointer: place for place in places(document)}
    holders: dict[Place, Problem] = {}
    for pointer, message in list(wrong.items())[:_MOST_TOLD]:
        holder = next(by_pointer[pointer[:n]] for n in range(len(pointer), -1, -1) if pointer[:n] in by_pointer)
        holders.setdefault(holder, Problem(pointer, message[:_LONGEST]))
    found = [problem for holder, first in holders.items() for problem in _in_words(holder) or [first]]
    return list(dict.fromkeys(found))[:_MOST_TOLD]


def _in_words(place: Place) -> list[Problem]:
    """What is wrong with a schema, whatever stands in the schemas in it."""
    from jsonschema import Draft202012Validator  # most schemas are right
    from jsonschema.exceptions import best_match

    found = []
    errors = Draft202012Validator(Draft202012Validator.META_SCHEMA).iter_errors(_without_parts(place))
    for error in islice(errors, _MOST_ERRORS):
        best = best_match([error])
        message = best.message[:_LONGEST]
        if list(best.absolute_path)[:1] == ["type"]:
            message = f"type is one of {', '.join(_TYPES)}, or a list of these, not {shown(best.instance)}"
        found.append(Problem((*place.pointer, *best.absolute_path), message))
    return found


def _without_parts(place: Place) -> Schema:
    """The schema without the schemas in it; in lists, `true` stands in their place."""
    if isinstance(place.schema, bool):
        return place.schema
    plain: dict[str, Any] = {}
    for keyword, value in place.schema.items():
        children = child_keywords(place, keyword) or {}
        if isinstance(value, dict):
            plain |= {} if () in children else {keyword: {k: part for k, part in value.items() if (k,) not in children}}
        elif isinstance(value, list) and children:
            plain[keyword] = [True if (i,) in children else part for i, part in enumerate(value)]
        elif () not in children:
            plain[keyword] = value
    return plain


def _unusable(schema: Schema) -> list[Problem]:
    try:
        validator(schema)
    except ValueError as error:
        path = tuple(getattr(error, "instance_path", ()))
        message = str(getattr(error, "message", error)).partition("\n")[0][:_LONGEST]
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

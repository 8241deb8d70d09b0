"""Checks whether a JSON value can be the schema of an event, and gives the reasons with places if not."""

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
_MAX_DEPTH = 64
_MAX_PLACES = 10_000
_MAX_ERRORS = 1000
_MAX_PROBLEMS = 100
_MAX_MESSAGE = 300  # characters of a message, which may quote the schema
_TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")


def refusals(schema: object) -> list[Problem]:
    """The reasons why a value cannot be the schema of an event, with places; empty if it can."""
    if not isinstance(schema, dict | bool):
        return [Problem((), f'a schema must be an object such as {{"type": "object"}}, not {shown(schema)}')]
    if too_deep := _too_deep(schema):
        return [too_deep]
    dialect = schema.get("$schema", DIALECT) if isinstance(schema, dict) else DIALECT
    if not isinstance(dialect, str) or dialect.rstrip("#") != DIALECT:
        message = f"$schema is {shown(dialect)}, but event types must be JSON Schema 2020-12; write {DIALECT}"
        return [Problem(("$schema",), message)]
    return _malformed(document := Document(schema)) or _unfit(document) or _unusable(schema)


def _malformed(document: Document) -> list[Problem]:
    """The violations of the JSON Schema specification. jsonschema-rs finds the places, jsonschema gives messages."""
    errors = islice(validator({"$ref": DIALECT}).iter_errors(document.root.schema), _MAX_ERRORS)
    wrong: dict[Pointer, str] = {tuple(error.instance_path): error.message for error in errors}
    if not wrong:
        return []
    by_pointer = {place.pointer: place for place in places(document)}
    holders: dict[Place, Problem] = {}
    for pointer, message in list(wrong.items())[:_MAX_PROBLEMS]:
        holder = next(by_pointer[pointer[:n]] for n in range(len(pointer), -1, -1) if pointer[:n] in by_pointer)
        holders.setdefault(holder, Problem(pointer, message[:_MAX_MESSAGE]))
    found = [problem for holder, first in holders.items() for problem in _own_problems(holder) or [first]]
    return list(dict.fromkeys(found))[:_MAX_PROBLEMS]


def _own_problems(place: Place) -> list[Problem]:
    """The problems of a schema itself, without those of the schemas in it."""
    from jsonschema import Draft202012Validator  # imported late: most schemas are valid
    from jsonschema.exceptions import best_match

    found = []
    errors = Draft202012Validator(Draft202012Validator.META_SCHEMA).iter_errors(_without_parts(place))
    for error in islice(errors, _MAX_ERRORS):
        best = best_match([error])
        message = best.message[:_MAX_MESSAGE]
        if list(best.absolute_path)[:1] == ["type"]:
            message = f"type must be one of {', '.join(_TYPES)}, or a list of these, not {shown(best.instance)}"
        found.append(Problem((*place.pointer, *best.absolute_path), message))
    return found


def _without_parts(place: Place) -> Schema:
    """The schema without the schemas in it; in lists, they are replaced by `true`."""
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
        message = str(getattr(error, "message", error)).partition("\n")[0][:_MAX_MESSAGE]
        if 'is not a "regex"' in message:
            message = "cannot be matched in linear time; remove lookaround, backreferences and large counts"
        return [Problem(path, message)]
    return []


def _too_deep(schema: Schema) -> Problem | None:
    todo: list[tuple[Any, Pointer]] = [(schema, ())]
    count = 0
    while todo:
        value, pointer = todo.pop()
        count += 1
        if len(pointer) > _MAX_DEPTH:
            return Problem(pointer[:3], f"has more than {_MAX_DEPTH} levels of nesting; move parts to $defs")
        if count > _MAX_PLACES * 10:
            return Problem((), "is too large for the schema of an event; describe only what functions need")
        if isinstance(value, float) and not isfinite(value):
            return Problem(pointer, "is too large for a number")
        if isinstance(value, dict):
            todo += [(child, (*pointer, key)) for key, child in value.items()]
        elif isinstance(value, list):
            todo += [(child, (*pointer, i)) for i, child in enumerate(value)]
    return None


def _unfit(document: Document) -> list[Problem]:
    """The parts that the specification allows, but an event's schema must not have."""
    everywhere = dict.fromkeys(places(document))
    if len(everywhere) > _MAX_PLACES:
        return [Problem((), f"contains more than {_MAX_PLACES:,} schemas; describe only what functions need")]
    found: list[Problem] = []
    for place in everywhere:
        for keyword in ("$ref", "$dynamicRef"):
            if isinstance(ref := place.get(keyword), str):
                found += _wrong_ref(place, keyword, ref, everywhere)
        if place.pointer and place.get("$id") is not None:
            message = "an $id inside a schema changes the meaning of $refs; remove it, and use $anchor or #/$defs/..."
            found.append(Problem((*place.pointer, "$id"), message))
    policy = document.root.get(POLICY)
    if policy is not None and policy not in POLICIES:
        found.append(Problem((POLICY,), f"{POLICY} must be one of {', '.join(POLICIES)}, not {shown(policy)}"))
    return found or _circles(everywhere)


def _wrong_ref(place: Place, keyword: str, ref: str, everywhere: dict[Place, None]) -> Iterator[Problem]:
    at = (*place.pointer, keyword)
    if keyword == "$dynamicRef":
        yield Problem(at, "$dynamicRef is not supported; use $ref")
    elif not ref.startswith("#"):
        message = f"{shown(ref)} is outside of the schema, and is not fetched; move it to $defs: #/$defs/..."
        yield Problem(at, message)
    elif place.document.target(ref) not in everywhere:
        yield Problem(at, f"{shown(ref)} does not refer to a schema; name an existing one, such as #/$defs/address")


def _circles(everywhere: dict[Place, None]) -> list[Problem]:
    """A schema that refers to itself for the same value, which would keep a validator in an endless loop."""
    state: dict[Place, bool] = {}  # False while being visited, True when done
    for start in everywhere:
        todo = [(start, False)]
        while todo:
            place, leaving = todo.pop()
            if leaving:
                state[place] = True
            elif state.get(place) is False:
                return [Problem(place.pointer, "refers to itself for the same value, so no value can be checked")]
            elif place not in state:
                state[place] = False
                todo.append((place, True))
                todo += [(child, False) for child in same_value(place) if state.get(child) is not True]
    return []

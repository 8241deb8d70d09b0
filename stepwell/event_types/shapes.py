"""The shapes of values in expressions: what the schemas of events say about them.

Without a schema, a value may be anything. If a schema describes the fields of an object, another field counts as
misspelt, unless the schema has `additionalProperties: true`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from stepwell.core.cel.ast import Scalar
from stepwell.event_types.alternatives import alternatives
from stepwell.event_types.constraints import Constraints
from stepwell.event_types.described import describes, event_schema
from stepwell.event_types.schema import Document, Schema

_KINDS = {"null": "null", "boolean": "bool", "integer": "number", "fraction": "number", "string": "string",
          "array": "list", "object": "map"}  # fmt: skip
_NUMBERS = frozenset({"integer", "fraction"})
ANY = frozenset({*_KINDS.values(), "bytes", "timestamp", "duration", "type"})
_MAX_ALTERNATIVES = 64
# Keywords that may describe further fields, which are not evaluated here.
_ELSEWHERE = ("if", "then", "else", "dependentSchemas", "$dynamicRef", "unevaluatedProperties")


@dataclass(frozen=True, slots=True)
class Shape:
    """What a value may be.

    `kinds` are the possible CEL types. `known` are the constraints from schemas, one for each alternative; empty if
    there is no schema. `optional`: the value may be missing. `calculated`: for the result of a calculation, whether the
    number is an integer, a fraction, or either; empty if unknown.
    """

    kinds: frozenset[str]
    known: tuple[Constraints, ...] = ()
    optional: bool = False
    calculated: frozenset[str] = frozenset()

    @property
    def numbers(self) -> frozenset[str]:
        """Whether a number may be an integer, a fraction, or either; empty if unknown. In JSON, 10 is an integer and
        10.0 a fraction."""
        found = set(self.calculated)
        for known in self.known:
            if known.values is None:
                found |= known.kinds & _NUMBERS
            else:
                numbers = [value for value in known.values if _kind(value) == "number"]
                found |= {"fraction" if isinstance(value, float) else "integer" for value in numbers}
        return frozenset(found)

    @property
    def values(self) -> list[Any] | None:
        """All possible values, if the schemas list them; otherwise None."""
        each = [known.values for known in self.known]
        if not each or any(values is None for values in each):
            return None
        return [value for values in each for value in values or ()]

    @property
    def fields(self) -> list[str]:
        return list(dict.fromkeys(name for known in self.known for name in known.fields))

    def field(self, name: str) -> Shape | None:
        """The shape of a field; None if no object of this shape has the field."""
        if not self.known:
            return DYNAMIC
        found: list[Constraints] = []
        optional = False
        for known in self.known:
            if "object" not in known.kinds:
                continue
            below = known.field(name)
            if below.is_empty:
                optional = True
            elif below.parts or _may_have_others(known):
                found.append(below)
                optional |= bool(below.parts) and name not in known.required  # unknown without a description
            else:
                optional = True
        return Shape(*_split(found), optional=optional) if found else None

    @property
    def elements(self) -> Shape:
        """The shape of the items of a list."""
        found = [known.item(i) for known in self.known if "array" in known.kinds for i in range(known.prefix + 1)]
        return Shape(*_split(found)) if found else DYNAMIC


def _may_have_others(known: Constraints) -> bool:
    """Whether objects may have fields that the schemas do not name."""
    if not known.fields and not known.patterns:
        return True
    is_open = any(place.get(word) is not None for place in known.places for word in _ELSEWHERE)
    return is_open or any(
        place.get(word) and place not in known.split for place in known.places for word in ("anyOf", "oneOf")
    )


def _split(constraints: Iterable[Constraints]) -> tuple[frozenset[str], tuple[Constraints, ...]]:
    """The possible kinds, and the constraints of each alternative."""
    split: list[Constraints] = []
    todo = [known for known in constraints if not known.is_empty]
    while todo:
        known = todo.pop(0)
        branches = alternatives(known) if len(split) + len(todo) < _MAX_ALTERNATIVES else []
        if branches:
            todo += [branch for branch in branches if not branch.is_empty]
        else:
            split.append(known)
    kinds: set[str] = set()
    for known in split:
        kinds |= {_kind(v) for v in known.values} if known.values is not None else {_KINDS[k] for k in known.kinds}
    return (frozenset(kinds), tuple(split)) if split else (ANY, ())


def _kind(value: Any) -> str:
    kinds: list[tuple[type | tuple[type, ...], str]] = [
        (bool, "bool"), ((int, float), "number"), (str, "string"), (bytes, "bytes"), (list, "list"), (dict, "map"),
    ]  # fmt: skip
    return next((kind for item, kind in kinds if isinstance(value, item)), "null")


def of_constant(value: Scalar) -> Shape:
    return (
        number("fraction" if isinstance(value, float) else "integer")
        if _kind(value) == "number"
        else Shape(frozenset({_kind(value)}))
    )


def number(*calculated: str) -> Shape:
    """The shape of a number; `calculated` names integer, fraction, or both; none if unknown."""
    return Shape(frozenset({"number"}), calculated=frozenset(calculated))


def either(shapes: Iterable[Shape]) -> Shape:
    """The shape of a value that has one of several shapes."""
    every = list(shapes)
    kinds = frozenset().union(*(shape.kinds for shape in every))
    known = tuple(known for shape in every for known in shape.known) if all(shape.known for shape in every) else ()
    numbers = [shape.numbers for shape in every if "number" in shape.kinds]
    calculated = frozenset[str]().union(*numbers) if all(numbers) and not known else frozenset[str]()
    return Shape(kinds, known, any(shape.optional for shape in every), calculated)


DYNAMIC = Shape(ANY)
BOOL, STRING = (Shape(frozenset({kind})) for kind in ("bool", "string"))

_ENVELOPE: dict[str, Any] = {
    "type": "object",
    "required": ["name", "data", "user", "id", "ts", "v"],
    "properties": {
        "name": {"type": "string"},
        "data": {"type": "object"},
        "user": {"type": "object"},
        "id": {"type": "string"},
        "ts": {"type": "integer"},
        "v": {"type": ["string", "null"]},
    },
}


def of_event(schema: Schema | None) -> Shape:
    """The shape of an event with this schema, or with an unknown type. docs/reference/http-api.md has the envelope."""
    return _of_event(orjson.dumps(schema, option=orjson.OPT_SORT_KEYS))


@lru_cache(maxsize=256)
def _of_event(text: bytes) -> Shape:
    schema = orjson.loads(text)
    envelope = Document(_ENVELOPE).root
    if schema is None:
        return Shape(*_split([Constraints((envelope,))]))
    whole = Document(schema if describes(schema) == "event" else event_schema(schema)).root
    return Shape(*_split([Constraints((envelope, whole))]))

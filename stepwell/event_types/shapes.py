"""What a value in an expression may be, as far as the schemas of events tell.

One rule: where schemas say nothing, anything may be. An object whose fields are described, and for which
`additionalProperties: true` is not written, has no others: whoever names another has misspelt one.
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
_MOST_ALTERNATIVES = 64
# Keywords that may describe fields in ways that are not followed here.
_ELSEWHERE = ("if", "then", "else", "dependentSchemas", "$dynamicRef", "unevaluatedProperties")


@dataclass(frozen=True, slots=True)
class Shape:
    """`kinds`: the types of CEL that the value may have. `known`: what schemas say of it, once for each alternative;
    without: nothing. `optional`: it may be missing. `calculated`: of a number that no schema describes, whether it is
    an integer or a fraction, if that is known."""

    kinds: frozenset[str]
    known: tuple[Constraints, ...] = ()
    optional: bool = False
    calculated: frozenset[str] = frozenset()

    @property
    def numbers(self) -> frozenset[str]:
        """Whether a number may be an integer, a fraction, or both; nothing if that is not known. JSON's 10 is an
        integer, and 10.0 a fraction."""
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
        """All values it can have, if they are known one by one."""
        each = [known.values for known in self.known]
        if not each or any(values is None for values in each):
            return None
        return [value for values in each for value in values or ()]

    @property
    def fields(self) -> list[str]:
        return list(dict.fromkeys(name for known in self.known for name in known.fields))

    def field(self, name: str) -> Shape | None:
        """The value of a field; None if no object of this shape has it."""
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
            elif below.parts or _says_nothing(known):
                found.append(below)
                optional |= (
                    bool(below.parts) and name not in known.required
                )  # of a field that nobody describes: unknown
            else:
                optional = True
        return Shape(*_seen(found), optional=optional) if found else None

    @property
    def elements(self) -> Shape:
        """What a list of this shape holds."""
        found = [known.item(i) for known in self.known if "array" in known.kinds for i in range(known.prefix + 1)]
        return Shape(*_seen(found)) if found else DYNAMIC


def _says_nothing(known: Constraints) -> bool:
    """Whether objects may have fields that the schemas do not name, as far as is known here."""
    if not known.fields and not known.patterns:
        return True
    unseen = any(place.get(word) is not None for place in known.places for word in _ELSEWHERE)
    return unseen or any(
        place.get(word) and place not in known.split for place in known.places for word in ("anyOf", "oneOf")
    )


def _seen(known: Iterable[Constraints]) -> tuple[frozenset[str], tuple[Constraints, ...]]:
    """Kinds, and what is known once for each alternative."""
    apart: list[Constraints] = []
    todo = [known for known in known if not known.is_empty]
    while todo:
        one = todo.pop(0)
        branches = alternatives(one) if len(apart) + len(todo) < _MOST_ALTERNATIVES else []
        if branches:
            todo += [branch for branch in branches if not branch.is_empty]
        else:
            apart.append(one)
    kinds: set[str] = set()
    for one in apart:
        kinds |= {_kind(v) for v in one.values} if one.values is not None else {_KINDS[kind] for kind in one.kinds}
    return (frozenset(kinds), tuple(apart)) if apart else (ANY, ())


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
    """A number that is an integer, or a fraction; if neither is named, that is not known."""
    return Shape(frozenset({"number"}), calculated=frozenset(calculated))


def either(shapes: Iterable[Shape]) -> Shape:
    """What one of several may be."""
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
    """An event, whose type is `schema` if it is known. Its envelope is always the contract's."""
    return _of_event(orjson.dumps(schema, option=orjson.OPT_SORT_KEYS))


@lru_cache(maxsize=256)
def _of_event(text: bytes) -> Shape:
    schema = orjson.loads(text)
    envelope = Document(_ENVELOPE).root
    if schema is None:
        return Shape(*_seen([Constraints((envelope,))]))
    whole = Document(schema if describes(schema) == "event" else event_schema(schema)).root
    return Shape(*_seen([Constraints((envelope, whole))]))

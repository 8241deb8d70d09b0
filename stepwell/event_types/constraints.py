"""What is known of a value that is valid under several schemas: types, bounds, fields and items.

The result may be too weak, but never too strong: keywords that are not understood are ignored.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from stepwell.event_types.schema import Place, conjunction, validator

if TYPE_CHECKING:
    import jsonschema_rs

# The types of JSON Schema as sets of disjoint kinds: a number is an integer or a fraction.
TYPES = {
    "null": frozenset({"null"}),
    "boolean": frozenset({"boolean"}),
    "object": frozenset({"object"}),
    "array": frozenset({"array"}),
    "string": frozenset({"string"}),
    "integer": frozenset({"integer"}),
    "number": frozenset({"integer", "fraction"}),
}
ALL_KINDS = frozenset().union(*TYPES.values())
_MAX_VALUES = 1000


@dataclass(frozen=True)
class Constraints:
    """Describes the values that are valid under every schema of `parts`; without parts, any value."""

    parts: tuple[Place, ...]
    split: frozenset[Place] = frozenset()  # schemas whose alternatives have been split by `alternatives`

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(self.parts)

    def also(self, *places: Place) -> Constraints:
        return Constraints((*self.parts, *places), self.split)

    @cached_property
    def places(self) -> tuple[Place, ...]:
        return tuple(dict.fromkeys(place for part in self.parts for place in conjunction(part)))

    @cached_property
    def schemas(self) -> list[dict[str, Any]]:
        return [place.schema for place in self.places if isinstance(place.schema, dict)]

    @cached_property
    def kinds(self) -> frozenset[str]:
        kinds = ALL_KINDS
        for schema in self.schemas:
            kinds &= kinds_of(schema)
        return kinds

    @cached_property
    def is_empty(self) -> bool:
        """Whether it is proven that no such value exists."""
        if any(place.schema is False for place in self.places) or not self.kinds:
            return True
        if self.kinds == {"object"} and any(self.field_refused(name) for name in self.required):
            return True
        return self.values is not None and not self.values

    @cached_property
    def values(self) -> list[Any] | None:
        """All possible values, if the schemas list them; otherwise None."""
        found = next((list(s["enum"]) for s in self.schemas if "enum" in s), None)
        found = next(([s["const"]] for s in self.schemas if "const" in s), found)
        if found is None and self.kinds <= {"null", "boolean"}:
            found = [None, False, True]
        if found is None or len(found) > _MAX_VALUES:
            return None
        return [value for value in found if all(is_valid(part, value) for part in self.parts)]

    # --- numbers, strings, lists: the strictest bounds ---

    def least(self) -> tuple[float, bool]:
        """The lower bound of a number, and whether the bound itself is excluded."""
        bounds = [(s["minimum"], False) for s in self.schemas if "minimum" in s]
        bounds += [(s["exclusiveMinimum"], True) for s in self.schemas if "exclusiveMinimum" in s]
        bound, excluded = max(bounds, default=(-math.inf, False))
        if bounds and "fraction" not in self.kinds:
            return (math.floor(bound) + 1 if excluded else math.ceil(bound)), False
        return bound, excluded

    def most(self) -> tuple[float, bool]:
        """The upper bound of a number, and whether the bound itself is excluded."""
        bounds = [(s["maximum"], True) for s in self.schemas if "maximum" in s]
        bounds += [(s["exclusiveMaximum"], False) for s in self.schemas if "exclusiveMaximum" in s]
        bound, included = min(bounds, default=(math.inf, True))
        if bounds and "fraction" not in self.kinds:
            return (math.floor(bound) if included else math.ceil(bound) - 1), False
        return bound, not included

    def at_least(self, keyword: str) -> int:
        """The strictest `minLength`, `minItems` or `minProperties`."""
        given = max((int(s[keyword]) for s in self.schemas if keyword in s), default=0)
        return max(given, len(self.required)) if keyword == "minProperties" else given

    def at_most(self, keyword: str) -> float:
        """The strictest `maxLength`, `maxItems` or `maxProperties`; infinite if there is none."""
        return min((s[keyword] for s in self.schemas if keyword in s), default=math.inf)

    def has(self, keyword: str, value: Any) -> bool:
        return any(keyword in s and s[keyword] == value for s in self.schemas)

    # --- fields ---

    @cached_property
    def required(self) -> frozenset[str]:
        return frozenset(name for s in self.schemas for name in s.get("required", ()))

    @cached_property
    def fields(self) -> dict[str, None]:
        return dict.fromkeys(name for s in self.schemas for name in s.get("properties", ()))

    @cached_property
    def patterns(self) -> dict[str, None]:
        return dict.fromkeys(pattern for s in self.schemas for pattern in s.get("patternProperties", ()))

    def field(self, name: str) -> Constraints:
        """The constraints on the value of a field, if the field is present."""
        if name not in self._below:
            self._below[name] = Constraints(tuple(part for place in self.places for part in field_places(place, name)))
        return self._below[name]

    @cached_property
    def _below(self) -> dict[str, Constraints]:
        return {}

    def field_refused(self, name: str) -> bool:
        return any(part.schema is False for part in self.field(name).places)

    def other_fields(self, patterns: Iterable[str]) -> Constraints:
        """The constraints on fields that no schema names, and whose names match none of `patterns`."""
        excluded = set(patterns)
        return Constraints(
            tuple(
                place.child("additionalProperties")
                for place in self.places
                if place.get("additionalProperties") is not None
                and excluded >= set(place.get("patternProperties") or ())
            )
        )

    def matching_fields(self, pattern: str) -> Constraints:
        """The constraints on fields that match a pattern and are not named."""
        has_it = [place for place in self.places if pattern in (place.get("patternProperties") or ())]
        closed = [place for place in self.places if not place.get("patternProperties")]
        found = [place.child("patternProperties", pattern) for place in has_it]
        found += [p.child("additionalProperties") for p in closed if p.get("additionalProperties") is not None]
        return Constraints(tuple(found))

    # --- items ---

    @cached_property
    def prefix(self) -> int:
        """The number of items that have a separate schema (`prefixItems`)."""
        return max((len(s.get("prefixItems", ())) for s in self.schemas), default=0)

    def item(self, index: int) -> Constraints:
        return Constraints(tuple(part for place in self.places for part in item_places(place, index)))


def kinds_of(schema: dict[str, Any]) -> frozenset[str]:
    """The kinds that a schema's `type` allows."""
    types = schema.get("type")
    if types is None:
        return ALL_KINDS
    kinds: frozenset[str] = frozenset()
    return kinds.union(*(TYPES[name] for name in ([types] if isinstance(types, str) else types)))


def field_places(place: Place, name: str) -> Iterator[Place]:
    """Yields the schemas in `place` that apply to a field."""
    named = name in (place.get("properties") or ())
    if named:
        yield place.child("properties", name)
    matching = [pattern for pattern in place.get("patternProperties") or () if matches(pattern, name)]
    yield from (place.child("patternProperties", pattern) for pattern in matching)
    if not named and not matching and place.get("additionalProperties") is not None:
        yield place.child("additionalProperties")


def item_places(place: Place, index: int) -> Iterator[Place]:
    """Yields the schema in `place` that applies to an item, if there is one."""
    if index < len(place.get("prefixItems") or ()):
        yield place.child("prefixItems", index)
    elif place.get("items") is not None:
        yield place.child("items")


@lru_cache(maxsize=4096)
def _pattern(pattern: str) -> jsonschema_rs.Draft202012Validator:
    return validator({"pattern": pattern})


def matches(pattern: str, name: str) -> bool:
    """Whether a field's name matches a pattern of `patternProperties`."""
    return bool(_pattern(pattern).is_valid(name))


def is_valid(place: Place, value: Any) -> bool:
    """Whether a value is valid under the schema at a place."""
    return place.document.is_valid(place, value)

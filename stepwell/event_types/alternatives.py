"""Alternatives of schemas (`anyOf`, `oneOf`): splits constraints by alternative, and proves alternatives disjoint."""

from __future__ import annotations

from functools import lru_cache

from stepwell.event_types.constraints import TYPES, Constraints, is_valid
from stepwell.event_types.schema import Document, Place

_MAX_SPLITS = 4  # nested alternatives


def are_disjoint(known: Constraints, other: Place, depth: int = 3) -> bool:
    """Whether it is proven that no value described by `known` is valid under `other`.

    `depth` is the number of levels of fields that are compared. False means "not proven".
    """
    constraints = _constraints_of(other)
    if known.is_empty or constraints.is_empty or not known.kinds & constraints.kinds:
        return True
    if known.values is not None:
        return not any(is_valid(other, value) for value in known.values)
    if constraints.values is not None:
        return not any(all(is_valid(part, value) for part in known.parts) for value in constraints.values)
    if not depth:
        return False
    for keyword in ("anyOf", "oneOf"):
        if other.get(keyword) and all(are_disjoint(known, choice, depth - 1) for choice in choices(other, keyword)):
            return True
    return (known.kinds & constraints.kinds) == {"object"} and any(
        known.field_refused(name)
        or any(are_disjoint(known.field(name), part, depth - 1) for part in constraints.field(name).parts)
        for name in known.required | constraints.required
    )


@lru_cache(maxsize=2048)
def _constraints_of(place: Place) -> Constraints:
    return Constraints((place,))


def alternatives(known: Constraints) -> list[Constraints]:
    """The constraints combined with each alternative of their first `anyOf` or `oneOf`; empty if there is none."""
    if len(known.split) >= _MAX_SPLITS:
        return []
    for place in known.places:
        keyword = "oneOf" if place.get("oneOf") else "anyOf"
        if place.get(keyword) and place not in known.split:
            split = known.split | {place}
            return [Constraints((*known.parts, choice), split) for choice in choices(place, keyword)]
    return []


def by_kind(known: Constraints) -> list[Constraints]:
    """The constraints combined with each type that the value may have; empty if only one type is possible."""
    if len(known.kinds) < 2 or known.kinds <= TYPES["number"]:
        return []
    return [known.also(place) for name, place in _TYPE_PLACES.items() if TYPES[name] & known.kinds]


_TYPE_PLACES = {name: Document({"type": name}).root for name in TYPES if name != "integer"}


def choices(place: Place, keyword: str) -> list[Place]:
    """The schemas in the list of a keyword."""
    return [place.child(keyword, i) for i in range(len(place.get(keyword)))]

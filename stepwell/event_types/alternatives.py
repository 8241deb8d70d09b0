"""Telling alternatives apart: what is known of a value once for each, and whether it can satisfy another schema.

Two are apart only if that is proven.
"""

from __future__ import annotations

from functools import lru_cache

from stepwell.event_types.constraints import TYPES, Constraints, is_valid
from stepwell.event_types.schema import Document, Place

_MOST_BRANCHES = 4  # alternatives in alternatives


def apart(known: Constraints, other: Place, depth: int = 3) -> bool:
    """Whether surely no value that `known` describes is valid under `other`. `depth`: how far into fields to look."""
    one = _alone(other)
    if known.is_empty or one.is_empty or not known.kinds & one.kinds:
        return True
    if known.values is not None:
        return not any(is_valid(other, value) for value in known.values)
    if one.values is not None:
        return not any(all(is_valid(part, value) for part in known.parts) for value in one.values)
    if not depth:
        return False
    for keyword in ("anyOf", "oneOf"):
        if other.get(keyword) and all(apart(known, choice, depth - 1) for choice in choices(other, keyword)):
            return True
    return (known.kinds & one.kinds) == {"object"} and any(
        known.field_refused(name) or any(apart(known.field(name), part, depth - 1) for part in one.field(name).parts)
        for name in known.required | one.required
    )


@lru_cache(maxsize=2048)
def _alone(place: Place) -> Constraints:
    return Constraints((place,))


def alternatives(known: Constraints) -> list[Constraints]:
    """What is known, once for each alternative of the first `anyOf` or `oneOf` in it; empty if there is none."""
    if len(known.split) >= _MOST_BRANCHES:
        return []
    for place in known.places:
        keyword = "oneOf" if place.get("oneOf") else "anyOf"
        if place.get(keyword) and place not in known.split:
            split = known.split | {place}
            return [Constraints((*known.parts, choice), split) for choice in choices(place, keyword)]
    return []


def by_kind(known: Constraints) -> list[Constraints]:
    """What is known, once for each type that the value may have; empty if it has only one."""
    if len(known.kinds) < 2 or known.kinds <= TYPES["number"]:
        return []
    return [known.also(place) for name, place in _TYPE_PLACES.items() if TYPES[name] & known.kinds]


_TYPE_PLACES = {name: Document({"type": name}).root for name in TYPES if name != "integer"}


def choices(place: Place, keyword: str) -> list[Place]:
    """The schemas in the list under a keyword."""
    return [place.child(keyword, i) for i in range(len(place.get(keyword)))]

"""Telling alternatives apart: what is known of a value once for each, and whether two of them can share one.

One rule: two are apart only if that is proven; what is not understood may be shared.
"""

from __future__ import annotations

from functools import lru_cache

from stepwell.event_types.known import TYPES, Known, is_valid
from stepwell.event_types.sameness import Sameness
from stepwell.event_types.schema import Document, Place

_MOST_BRANCHES = 4  # alternatives in alternatives


def _kind_places() -> dict[str, Place]:
    return {name: Document({"type": name}).root for name in TYPES}


_KIND_PLACES = _kind_places()
TEXT = _KIND_PLACES["string"]


def apart(known: Known, other: Place, same: Sameness, depth: int = 3) -> bool:
    """Whether surely no value that `known` describes is valid under `other`."""
    if known.is_empty:
        return True
    one = _alone(other)
    if one.is_empty or not known.kinds & one.kinds:
        return True
    if known.values is not None:
        return not any(is_valid(other, value) for value in known.values)
    if one.values is not None:
        return not any(all(is_valid(part, value) for part in known.parts) for value in one.values)
    if not depth:
        return any(same(never, other) for never in known.never)
    for keyword in ("anyOf", "oneOf"):
        if other.get(keyword) and all(apart(known, choice, same, depth - 1) for choice in choices(other, keyword)):
            return True
    if (known.kinds & one.kinds) == {"object"} and _by_fields(known, one, same, depth):
        return True
    return any(same(never, other) for never in known.never)


def _by_fields(known: Known, one: Known, same: Sameness, depth: int) -> bool:
    """Whether objects are apart by a field that one must have, and that the other may not have so."""
    if any(known.field_refused(name) for name in one.required) or any(one.field_refused(n) for n in known.required):
        return True
    return any(
        apart(known.field(name), part, same, depth - 1)
        for name in known.required
        for part in one.field(name).parts
    )  # fmt: skip


@lru_cache(maxsize=2048)
def _alone(place: Place) -> Known:
    return Known((place,))


def alternatives(known: Known) -> list[Known]:
    """What is known, once for each alternative of the first `anyOf` or `oneOf` in it; empty if there is none."""
    if len(known.split) >= _MOST_BRANCHES:
        return []
    for place in known.places:
        keyword = "oneOf" if place.get("oneOf") else "anyOf"
        if place.get(keyword) and place not in known.split:
            items = choices(place, keyword)
            split = known.split | {place}
            return [
                Known(
                    (*known.parts, choice),
                    (*known.never, *(c for c in items if c is not choice)) if keyword == "oneOf" else known.never,
                    split,
                )
                for choice in items
            ]
    return []


def by_kind(known: Known) -> list[Known]:
    """What is known, once for each kind of value it may be; empty if it is only one."""
    if (
        alternatives(known)
        or len(known.kinds) < 2
        or known.kinds <= TYPES["number"]
        or any(p in _KIND_PLACES.values() for p in known.parts)
    ):
        return []
    return [
        known.also(_KIND_PLACES[name])
        for name, kinds in TYPES.items()
        if name != "integer" and (kinds & known.kinds)
    ]  # fmt: skip


def choices(place: Place, keyword: str) -> list[Place]:
    return [place.child(keyword, i) for i in range(len(place.get(keyword)))]

"""Computes how deep a value may be nested to be checked against a schema, and how much work the check is.

This keeps checks short for any schema and value. A validator follows every path through the schema to a part of the
value; a schema that refers to itself twice doubles the number of paths with every level.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stepwell.event_types.schema import Document, Place, Schema, same_value

MOST_WAYS = 10_000  # paths from the top of a value to a leaf
_DEEPEST = 250  # levels; an event has fewer
_EVERY_MEMBER = ("unevaluatedProperties", "propertyNames")
_LISTS = ("enum", "patternProperties", "required", "dependentRequired", "dependentSchemas", "properties")
_EVERY_ITEM = ("unevaluatedItems", "contains")

_Groups = list[list[int]]
_Node = tuple[list[int], _Groups, _Groups]
"""The numbers of the schemas that a schema leads to: for the same value, and groups of those that apply together to one
member or item of the value."""
_MAX_WORK = 1_000_000_000
_DIVISION = 16  # the additional cost of an exact division by a fraction, in visits


class TooManyWays(Exception):
    """The schema has too many paths to be checked."""


def deepest(schema: Schema) -> int | None:
    """The number of levels that a value may have; None if there is no limit. Raises TooManyWays.

    `schema_checks.refusals` must be empty for the schema.
    """
    nodes, top, _ = _nodes(Document(schema).root)
    ways, each = [0] * len(nodes), [1] * len(nodes)
    for level in range(_DEEPEST):
        before, ways = ways, _ways(nodes, ways, each, MOST_WAYS + 1)
        if ways[top] > MOST_WAYS:
            if level == 0:
                raise TooManyWays("the references expand to too many schemas; use fewer references")
            return level
        if ways == before:
            return None
    return None


def work(schema: Schema) -> list[int]:
    """The maximum number of visits by a validator for each part of a value with 1, 2, 3, ... levels.

    The last number is for all values with more levels. `schema_checks.refusals` must be empty for the schema.
    """
    nodes, top, costs = _nodes(Document(schema).root)
    ways, by_levels = [0] * len(nodes), list[int]()
    for _ in range(_DEEPEST):
        before, ways = ways, _ways(nodes, ways, costs, _MAX_WORK)
        by_levels.append(ways[top])
        if ways == before:
            break
    return by_levels


def _ways(nodes: Sequence[_Node], below: Sequence[int], each: Sequence[int], most: int) -> list[int]:
    """For each schema, the number of paths of a validator through a value with one level more than in `below`.

    `each` is the cost of each schema. A value is an object or a list, so the larger of both counts.
    """
    ways_here: list[int] = []
    in_members: list[int] = []
    in_items: list[int] = []
    found: list[int] = []
    for (same, members, items), number in zip(nodes, each, strict=True):
        ways_here.append(number + sum([ways_here[child] for child in same]))
        in_members.append(sum([in_members[child] for child in same]) + _widest(members, below))
        in_items.append(sum([in_items[child] for child in same]) + _widest(items, below))
        found.append(min(ways_here[-1] + max(in_members[-1], in_items[-1]), most))
    return found


def _widest(groups: _Groups, below: Sequence[int]) -> int:
    return max([sum([below[child] for child in group]) for group in groups], default=0)


def _nodes(root: Place) -> tuple[list[_Node], int, list[int]]:
    """All schemas that can be reached from `root`, the number of `root`, and the cost of each schema.

    A schema comes after the schemas that it leads to for the same value.
    """
    parts: dict[Place, tuple[list[list[Place]], list[list[Place]]]] = {}
    todo = [root]
    while todo:
        place = todo.pop()
        if place not in parts:
            parts[place] = members, items = _members(place), _items(place)
            todo += [*same_value(place), *(child for group in (*members, *items) for child in group)]
    number: dict[Place, int] = {}
    for start in parts:
        steps = [(start, False)]
        while steps:
            place, leaving = steps.pop()
            if leaving:
                number.setdefault(place, len(number))
            elif place not in number:
                steps.append((place, True))
                steps += [(child, False) for child in same_value(place)]
    return [_numbered(place, parts[place], number) for place in number], number[root], list(map(_cost, number))


def _cost(place: Place) -> int:
    lists = sum(len(value) for word in _LISTS if isinstance(value := place.get(word), dict | list))
    return 1 + lists + (_DIVISION if isinstance(place.get("multipleOf"), float) else 0)


def _numbered(place: Place, parts: tuple[list[list[Place]], list[list[Place]]], number: dict[Place, int]) -> _Node:
    members, items = ([[number[child] for child in group] for group in groups] for groups in parts)
    return [number[child] for child in same_value(place)], members, items


def _members(place: Place) -> list[list[Place]]:
    every = [*_ones(place, _EVERY_MEMBER), *_many(place, "patternProperties")]
    groups = [[child, *every] for child in _many(place, "properties")]
    return [group for group in [*groups, [*_ones(place, ("additionalProperties",)), *every]] if group]


def _items(place: Place) -> list[list[Place]]:
    every = list(_ones(place, _EVERY_ITEM))
    groups = [[child, *every] for child in _many(place, "prefixItems")]
    return [group for group in [*groups, [*_ones(place, ("items",)), *every]] if group]


def _ones(place: Place, keywords: Sequence[str]) -> Iterator[Place]:
    return (place.child(keyword) for keyword in keywords if isinstance(place.get(keyword), dict))


def _many(place: Place, keyword: str) -> Iterator[Place]:
    value = place.get(keyword)
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return (place.child(keyword, key) for key, child in entries if isinstance(child, dict))

"""How deep a value may be that is held against a schema, and how much work that is.

One rule: a check ends soon, whoever wrote schema and value. A validator goes down every way that leads through the
schema to a part of the value, and a schema that reaches itself by two ways at once doubles them with every level.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stepwell.event_types.schema import Document, Place, Schema, same_value

MOST_WAYS = 10_000  # from the top of a value to one of its leaves
_DEEPEST = 250  # levels; an event has fewer
_EVERY_MEMBER = ("unevaluatedProperties", "propertyNames")
_LISTS = ("enum", "patternProperties", "required", "dependentRequired", "dependentSchemas", "properties")
_EVERY_ITEM = ("unevaluatedItems", "contains")

_Groups = list[list[int]]
_Node = tuple[list[int], _Groups, _Groups]
"""Numbers of the schemas that one leads to: for the same value, and groups of those that may meet in one member or item
of it."""
_MOST_WORK = 1_000_000_000
_DIVISION = 16  # what an exact division by a fraction costs more than other looks


class TooManyWays(Exception):
    """its references unfold to too much; use fewer of them"""


def deepest(schema: Schema) -> int | None:
    """How many levels a value may have; None if it does not matter. `schema` is one that `schema.refusals` let pass.
    Raises TooManyWays."""
    nodes, top, _ = _nodes(Document(schema).root)
    ways, each = [0] * len(nodes), [1] * len(nodes)
    for level in range(_DEEPEST):
        before, ways = ways, _ways(nodes, ways, each, MOST_WAYS + 1)
        if ways[top] > MOST_WAYS:
            if level == 0:
                raise TooManyWays(TooManyWays.__doc__)
            return level
        if ways == before:
            return None
    return None


def work(schema: Schema) -> list[int]:
    """How much a validator looks at, at most, for each part of a value with 1, 2, 3, ... levels; the last counts for
    all with more. `schema` is one that `schema.refusals` let pass."""
    nodes, top, costs = _nodes(Document(schema).root)
    ways, by_levels = [0] * len(nodes), list[int]()
    for _ in range(_DEEPEST):
        before, ways = ways, _ways(nodes, ways, costs, _MOST_WORK)
        by_levels.append(ways[top])
        if ways == before:
            break
    return by_levels


def _ways(nodes: Sequence[_Node], below: Sequence[int], each: Sequence[int], most: int) -> list[int]:
    """For each schema, how many ways a validator goes through a value that has one level more than in `below`; `each`
    says how many a schema counts for. A value is an object or a list, so what leads to members does not meet what leads
    to items."""
    here: list[int] = []
    in_members: list[int] = []
    in_items: list[int] = []
    found: list[int] = []
    for (same, members, items), number in zip(nodes, each, strict=True):
        here.append(number + sum([here[child] for child in same]))
        in_members.append(sum([in_members[child] for child in same]) + _widest(members, below))
        in_items.append(sum([in_items[child] for child in same]) + _widest(items, below))
        found.append(min(here[-1] + max(in_members[-1], in_items[-1]), most))
    return found


def _widest(groups: _Groups, below: Sequence[int]) -> int:
    return max([sum([below[child] for child in group]) for group in groups], default=0)


def _nodes(root: Place) -> tuple[list[_Node], int, list[int]]:
    """All schemas that are reached from one, each after those that it leads to for the same value; its own number; and
    what each has to look at itself."""
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

"""Estimates how long an evaluation takes before it starts, from the syntax tree and the sizes of the values.

The CEL library cannot be interrupted, and it limits only the iterations of loops. So an evaluation that may take too
long is not started. Every estimate is an upper bound. Times are in nanoseconds on an ordinary machine.
"""

from __future__ import annotations

from bisect import bisect
from dataclasses import dataclass
from typing import Protocol

from stepwell.core.cel.ast import Call, Comprehension, Const, Ident, Items, Node, Path, Select, path
from stepwell.core.cel.sizes import Size, one

MOST_ENTRIES = 1000  # limit for the lists of map and filter, and of `in` inside a loop
_MOST_ROUNDS = 10_000  # iterations of all loops in one evaluation; the library stops after that
_MS = 1_000_000
_LENGTHS = (0, 256, 1_000, 4_000, 16_000, 64_000, 256_000, 4_000_000)
_CHEAP = 3 * _MS  # below this, values are not measured before the evaluation
_MOST = 35 * _MS  # above this, an evaluation is refused

_NODE, _FIELD, _ROUND, _COPIED, _COMPARED, _TEXT_COMPARED = 80, 40, 150, 45, 150, 0.1
_CONVERTED, _CONTAINER = 120, 600
_LOOKED_THROUGH, _ZONE = 25, 30_000
_READ = {"size": 0.7, "string": 2, "bytes": 1, **dict.fromkeys(("int", "uint", "double", "timestamp", "duration"), 8)}
_LOGIC = frozenset({"_&&_", "_||_", "!_", "@not_strictly_false", "_>_", "_>=_", "_<_", "_<=_", "_==_", "_!=_", "@in"})
_COMPARES = frozenset({"_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "startsWith", "endsWith"})


def _scalar(times: float, characters: float = 0) -> Size:
    return Size(1, characters, 0, times, characters * times)


def _sum_of(sizes: list[Size]) -> Size:
    return Size(
        1 + sum(size.nodes for size in sizes),
        sum(size.characters for size in sizes),
        sum(size.entries for size in sizes),
        sum(size.all_nodes for size in sizes),
        sum(size.all_characters for size in sizes),
    )


class Sizes(Protocol):
    """The sizes of the values that an expression names."""

    def size(self, at: Path) -> Size: ...

    def largest_entry(self, at: Path) -> Size: ...


@dataclass(frozen=True, slots=True)
class _TotalLength:
    """Sizes of unknown values. Only their total length is known, in bytes as JSON."""

    length: int

    def size(self, at: Path) -> Size:
        return one(self.length / 2, self.length, self.length / 2)

    largest_entry = size


@dataclass(frozen=True, slots=True)
class _RoughSizes:
    """Sizes that take little time to find: the largest entry of a list counts as large as the whole list."""

    sizes: Sizes

    def size(self, at: Path) -> Size:
        return self.sizes.size(at)

    largest_entry = size


class TooCostly(Exception):
    """The evaluation is not started because it may take too long. `on`: the most expensive part, if known."""

    def __init__(self, message: str, on: str = "") -> None:
        super().__init__(message)
        self.on = on


def check_cost(tree: Node, sizes: Sizes, converted: Size, *, returns_value: bool) -> float:
    """The upper bound of an evaluation's time. Raises TooCostly if that is over the limit.

    `converted`: the size of all values that the library has to convert. `returns_value`: whether the result is
    converted back, which conditions do not need.
    """
    try:
        return _cost(tree, _RoughSizes(sizes), _MOST, converted, returns_value)
    except TooCostly:
        return _cost(tree, sizes, _MOST, converted, returns_value)


def _cost(tree: Node, sizes: Sizes, limit: float, converted: Size, returns_value: bool) -> float:
    meter = _Meter(sizes, limit)
    meter.spend(_CONVERTED * converted.nodes + _CONTAINER * converted.containers, "the number of values")
    size = meter.visit(tree, {}, 1)
    meter.spend((200 * size.all_nodes + size.all_characters) * returns_value, "the size of the result")
    return meter.spent


def harmless_length(tree: Node, *, returns_value: bool = False) -> int:
    """The length of all variables as JSON up to which an evaluation is always cheap; one of _LENGTHS."""
    return _longest(tree, _CHEAP, returns_value)


def evaluated_length(tree: Node) -> int:
    """The length of all variables as JSON up to which a condition is always evaluated; one of _LENGTHS."""
    return _longest(tree, _MOST, returns_value=False)


def _longest(tree: Node, limit: float, returns_value: bool) -> int:
    def costs_too_much(length: int) -> bool:
        worst = one(length / 2, length, 0, containers=length / 3)
        try:
            _cost(tree, _TotalLength(length), limit, worst, returns_value)
        except TooCostly:
            return True
        return False

    return _LENGTHS[bisect(_LENGTHS, False, lo=1, key=costs_too_much) - 1]


def always_too_costly(tree: Node) -> str | None:
    """The part that makes an evaluation too slow even with an empty event; None if there is none."""
    try:
        check_cost(tree, _TotalLength(0), one(0, 0, 0), returns_value=False)
    except TooCostly as error:
        return error.on
    return None


class _Meter:
    def __init__(self, sizes: Sizes, limit: float) -> None:
        self.spent: float = 0
        self.most: tuple[float, str] = (0, "")  # the most expensive part: cost, name
        self._sizes, self._limit = sizes, limit

    def spend(self, cost: float, on: str) -> None:
        """Adds a cost. Raises TooCostly when the sum is over the limit. `on`: the name of the part, for users."""
        self.spent += cost
        self.most = max(self.most, (cost, on))
        if self.spent > self._limit:
            on = self.most[1]
            raise TooCostly(f"the data is too large for this expression, which would take too long: {on}", on)

    def visit(self, node: Node, known: dict[str, Size], times: float) -> Size:
        """The size of a node's value when the node is evaluated `times` times. Adds the cost of that.

        `known`: the sizes of loop variables.
        """
        if isinstance(node, Const):
            return _scalar(times, len(node.value) if isinstance(node.value, str | bytes) else 0)
        if isinstance(node, Ident) and (node.name in known or node.name.startswith("@")):
            return known.get(node.name) or _scalar(times)
        if isinstance(node, Comprehension):
            return self._loop(node, known, times)
        if (value := path(node)) is not None and value[0] not in known:
            self.spent += _FIELD * times * len(value)
            return self._sizes.size(value).times(times)
        self.spent += _NODE * times
        if isinstance(node, Select):
            inner = self.visit(node.operand, known, times)
            return _scalar(times) if node.test_only else _part_of(inner)
        if isinstance(node, Items):
            parts = _sum_of([self.visit(part, known, times) for part in node.parts])
            return Size(parts.nodes, parts.characters, len(node.parts), parts.all_nodes + times, parts.all_characters)
        return self._call(node, known, times) if isinstance(node, Call) else _scalar(times)

    def _call(self, node: Call, known: dict[str, Size], times: float) -> Size:
        parts = [*([] if node.target is None else [node.target]), *node.args]
        sizes = [self.visit(part, known, times) for part in parts]
        function = node.function
        if function == "_[_]":
            return _part_of(sizes[0])
        if function == "_+_":
            if not _is_collected(node.args[0]):  # for map and filter, `_loop` counts the copying of the list
                self.spend(sum(0.1 * size.all_characters + 60 * size.all_nodes for size in sizes), "+ of large values")
            return _sum_of(sizes)
        if function == "_?_:_":
            return _larger(sizes[1], sizes[2])
        if function in _COMPARES:
            self._compare(sizes, times)
        elif function == "@in":
            self._look_through(sizes[0], sizes[1], times)
        elif function == "contains":
            text, sought = sizes
            pairs = min(text.all_characters * sought.characters, text.characters * sought.all_characters)
            self.spend(2.2 * text.all_characters + 0.013 * pairs, "contains()")
        elif function == "matches":
            self._match(sizes[0], parts[-1], times)
        elif function in _READ:
            read = sum(size.all_characters for size in sizes)
            self.spend(_READ[function] * read, f"{function}() of a long value")
            return _scalar(times) if function not in ("string", "bytes") else sizes[0]
        elif function not in _LOGIC:
            is_zone = function.startswith("get") and len(parts) > 1 and not isinstance(parts[1], Const)
            self.spend((_ZONE if is_zone else _NODE) * times, "time zones")
            self.spend(10 * sum(size.all_characters for size in sizes), f"{function} of a long value")
        return _scalar(times)

    def _compare(self, sizes: list[Size], times: float) -> None:
        nodes = min(size.all_nodes for size in sizes) - times
        characters = min(size.all_characters for size in sizes)
        self.spend(_COMPARED * max(nodes, 0) + _TEXT_COMPARED * characters, "comparing large values")

    def _look_through(self, sought: Size, within: Size, times: float) -> None:
        if within.is_object:
            return
        entries = within.entries * times
        if times > 1 and within.entries > MOST_ENTRIES:
            raise TooCostly(_too_many(within.entries))
        nodes = max(0, min(within.all_nodes - entries, entries * (sought.nodes - 1)))  # without the entries themselves
        characters = min(within.all_characters, entries * sought.characters)
        self.spend(_LOOKED_THROUGH * entries + _COMPARED * nodes + _TEXT_COMPARED * characters, "`in` with a long list")

    def _match(self, text: Size, pattern: Node, times: float) -> None:
        from stepwell.core.cel.patterns import pattern_cost  # imported late: most expressions have no pattern

        source = pattern.value if isinstance(pattern, Const) and isinstance(pattern.value, str) else ""
        on = f"the pattern '{source if len(source) <= 60 else source[:60] + '...'}'"
        self.spend(pattern_cost(source).of(times, text.all_characters), on)

    def _loop(self, loop: Comprehension, known: dict[str, Size], times: float) -> Size:
        over = self.visit(loop.range, known, times)
        rounds = min(over.entries * times, over.all_nodes, _MOST_ROUNDS)
        inside = {name: size.within(rounds, over.entries) for name, size in known.items()}
        at = path(loop.range)
        entry = over if at is None or at[0] in known else self._sizes.largest_entry(at)
        inside[loop.variable] = Size(entry.nodes, entry.characters, entry.nodes, over.all_nodes, over.all_characters)
        self.visit(loop.init, known, times)
        self.visit(loop.condition, inside, rounds)
        collected = self.visit(loop.step, inside, rounds)
        self.visit(loop.result, known, times)
        self.spend(_ROUND * rounds, f"a loop of {rounds:,.0f} iterations")
        if not collects(loop):
            return _scalar(times)
        if over.entries > MOST_ENTRIES:
            raise TooCostly(_too_many(over.entries))
        self.spend(_COPIED * rounds * over.entries / 2, "map or filter, which copy their result in each iteration")
        entries = over.entries
        nodes, characters = collected.nodes * max(entries, 1), collected.characters * entries
        return Size(nodes, characters, entries, collected.all_nodes + times, collected.all_characters)


def collects(loop: Comprehension) -> bool:
    """Whether the loop is a `map` or a `filter`."""
    step = loop.step
    if isinstance(step, Call) and step.function == "_?_:_":
        step = step.args[1]
    return (
        isinstance(step, Call)
        and step.function == "_+_"
        and _is_collected(step.args[0])
        and isinstance(step.args[1], Items)
    )


def _is_collected(node: Node) -> bool:
    """Whether the node is the result that a loop has collected so far.

    Only the library makes such names: users cannot write @ in CEL.
    """
    return isinstance(node, Ident) and node.name.startswith("@")


def _too_many(entries: float) -> str:
    return f"map, filter and `in` inside a loop take at most {MOST_ENTRIES:,} entries; there are {entries:,.0f}"


def _part_of(whole: Size) -> Size:
    """The size of any part of a value: at most that of the whole."""
    return Size(whole.nodes, whole.characters, whole.nodes, whole.all_nodes, whole.all_characters)


def _larger(one: Size, other: Size) -> Size:
    return Size(
        max(one.nodes, other.nodes),
        max(one.characters, other.characters),
        max(one.entries, other.entries),
        max(one.all_nodes, other.all_nodes),
        max(one.all_characters, other.all_characters),
        one.is_object and other.is_object,
    )

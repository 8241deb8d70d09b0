"""Reads the syntax tree of a compiled CEL expression from its serialised form (protobuf `cel.expr.CheckedExpr`).

The tree holds what Stepwell needs: the paths and functions that an expression uses. The wire format is described in
https://protobuf.dev/programming-guides/encoding/, the fields in cel-spec's `checked.proto` and `syntax.proto`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

Scalar = str | int | float | bool | bytes | None


@dataclass(frozen=True, slots=True)
class Const:
    value: Scalar


@dataclass(frozen=True, slots=True)
class Ident:
    name: str


@dataclass(frozen=True, slots=True)
class Select:
    operand: Node
    field: str
    test_only: bool  # has(operand.field)


@dataclass(frozen=True, slots=True)
class Call:
    function: str  # operators are named _==_, _&&_, _[_] and so on
    target: Node | None
    args: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Items:
    """A list, a map or a message, with the expressions in it. A node of an unknown kind is one without parts."""

    parts: tuple[Node, ...]
    is_list: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Comprehension:
    """A fold over `range`: CEL expands the macros all, exists, map and filter to this. Only `range` is evaluated
    outside the loop."""

    variable: str  # inside the loop, it hides a variable of the same name
    range: Node
    init: Node
    condition: Node
    step: Node
    result: Node


Node = Const | Ident | Select | Call | Items | Comprehension
Path = tuple[str, ...]
_OPAQUE = Items(())


def decode(serialized: bytes) -> Node:
    """The tree of `Expression.serialize()`: an `Any` that holds a CheckedExpr."""
    checked = _message(_message(serialized)[2][0])
    return _node(checked[4][0])


def walk(node: Node) -> Iterator[Node]:
    """The node and all nodes below it, parents first."""
    yield node
    for child in children(node):
        yield from walk(child)


def children(node: Node) -> tuple[Node, ...]:
    if isinstance(node, Select):
        return (node.operand,)
    if isinstance(node, Call):
        return node.args if node.target is None else (node.target, *node.args)
    if isinstance(node, Items):
        return node.parts
    if isinstance(node, Comprehension):
        return (node.range, node.init, node.condition, node.step, node.result)
    return ()


def conjuncts(node: Node) -> Iterator[Node]:
    """The operands of the outermost `&&`s; the node itself if there is none."""
    if isinstance(node, Call) and node.function == "_&&_":
        for arg in node.args:
            yield from conjuncts(arg)
    else:
        yield node


def decisive_parts(node: Node, *, is_negated: bool = False) -> Iterator[tuple[Node, bool]]:
    """The parts of a condition that can each decide it alone, with whether the part is negated.

    If a part is false (or true, where it is negated), the whole condition is false, whatever the other parts are. This
    holds for errors too: CEL's && and || are commutative and ignore an error on one side if the other side decides.
    """
    if isinstance(node, Call) and node.function == "!_":
        yield from decisive_parts(node.args[0], is_negated=not is_negated)
    elif isinstance(node, Call) and node.function == ("_||_" if is_negated else "_&&_"):
        for arg in node.args:
            yield from decisive_parts(arg, is_negated=is_negated)
    else:
        yield node, is_negated


def path(node: Node) -> Path | None:
    """`a.b['c']` as ("a", "b", "c"); None for anything else."""
    if isinstance(node, Ident):
        return (node.name,)
    if isinstance(node, Select) and not node.test_only:
        return _below(node.operand, node.field)
    if isinstance(node, Call) and node.function == "_[_]":
        operand, index = node.args
        if isinstance(index, Const) and isinstance(index.value, str):
            return _below(operand, index.value)
    return None


def paths(node: Node) -> Iterator[Path]:
    """All paths in a tree, each in full length, including those that begin with a loop variable."""
    at = path(Select(node.operand, node.field, False)) if isinstance(node, Select) else path(node)
    if at is not None:
        yield at
    else:
        for child in children(node):
            yield from paths(child)


def step_names(node: Node, hidden: frozenset[str] = frozenset()) -> Iterator[str]:
    """The ids of steps that a tree names, as in `steps.x` or `errors['x']`. `hidden`: names of loop variables."""
    found = path(Select(node.operand, node.field, False)) if isinstance(node, Select) else path(node)
    if found is not None and len(found) >= 2 and found[0] in {"steps", "errors"} - hidden:
        yield found[1]
    if isinstance(node, Comprehension):
        yield from step_names(node.range, hidden)
        for part in (node.condition, node.step, node.result):
            yield from step_names(part, hidden | {node.variable})
    else:
        for child in children(node):
            yield from step_names(child, hidden)


def _below(operand: Node, field: str) -> Path | None:
    above = path(operand)
    return None if above is None else (*above, field)


# --- protobuf ------------------------------------------------------------------------------------------------------


def _message(data: bytes) -> dict[int, list[bytes]]:
    """The fields of a message by number. The value of a numeric field is given as little-endian or varint bytes."""
    fields: dict[int, list[bytes]] = {}
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        start = at
        if wire == 0:
            _, at = _varint(data, at)
        elif wire == 2:
            size, start = _varint(data, at)
            at = start + size
        else:
            at += 8 if wire == 1 else 4
        fields.setdefault(key >> 3, []).append(data[start:at])
    return fields


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def _text(fields: dict[int, list[bytes]], number: int) -> str:
    return fields[number][0].decode() if number in fields else ""


def _node(data: bytes) -> Node:
    fields = _message(data)
    for number, read in _KINDS.items():
        if number in fields:
            return read(fields[number][0])
    return _OPAQUE


def _const(data: bytes) -> Node:
    for number, (raw,) in _message(data).items():
        if number == 1:
            return Const(None)
        if number == 2:
            return Const(_varint(raw, 0)[0] != 0)
        if number == 3:
            value = _varint(raw, 0)[0]
            return Const(value - (1 << 64) if value >> 63 else value)
        if number == 4:
            return Const(_varint(raw, 0)[0])
        if number == 5:
            return Const(struct.unpack("<d", raw)[0])
        if number == 6:
            return Const(raw.decode())
        if number == 7:
            return Const(raw)
    return _OPAQUE


def _ident(data: bytes) -> Node:
    return Ident(_text(_message(data), 1))


def _select(data: bytes) -> Node:
    fields = _message(data)
    return Select(_node(fields[1][0]), _text(fields, 2), 3 in fields and fields[3][0] != b"\0")


def _call(data: bytes) -> Node:
    fields = _message(data)
    target = _node(fields[1][0]) if 1 in fields else None
    return Call(_text(fields, 2), target, tuple(_node(arg) for arg in fields.get(3, [])))


def _list(data: bytes) -> Node:
    return Items(tuple(_node(item) for item in _message(data).get(1, [])), is_list=True)


def _struct(data: bytes) -> Node:
    entries = [_message(entry) for entry in _message(data).get(2, [])]
    return Items(tuple(_node(part) for entry in entries for number in (3, 4) for part in entry.get(number, [])))


def _comprehension(data: bytes) -> Node:
    fields = _message(data)
    source, init, condition, step, result = (
        _node(fields[number][0]) if number in fields else _OPAQUE for number in (2, 4, 5, 6, 7)
    )
    return Comprehension(_text(fields, 1), source, init, condition, step, result)


_KINDS = {3: _const, 4: _ident, 5: _select, 6: _call, 7: _list, 8: _struct, 9: _comprehension}

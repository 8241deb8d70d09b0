"""How messages about an expression call its parts."""

from __future__ import annotations

from typing import Any

from stepwell.core.cel.ast import Call, Const, Node, path
from stepwell.core.definition.problems import shown
from stepwell.event_types.shapes import Shape

_NAMES = {"bool": "true or false", "null": "null", "map": "an object", "list": "a list", "bytes": "bytes"}


def named(node: Node) -> str:
    """The part as it is written, as far as it is a path or a constant."""
    if isinstance(node, Const):
        return shown(node.value) if not isinstance(node.value, bytes) else "bytes"
    fields = path(node)
    if fields is None:
        return "`" + node.function.strip("_@") + "(...)`" if isinstance(node, Call) else "the value"
    return "`" + fields[0] + "".join(f".{f}" if f.isidentifier() else f"[{f!r}]" for f in fields[1:]) + "`"


def kinds_in_words(shape: Shape) -> str:
    """a string or null"""
    return " or ".join(_NAMES.get(kind, f"a {kind}") for kind in sorted(shape.kinds))


def compared(operands: tuple[Node, ...], shapes: list[Shape]) -> str:
    """compares `data.a`, a string, with 1, a number"""
    one, two = (f"{named(node)}, {kinds_in_words(shape)}," for node, shape in zip(operands, shapes, strict=True))
    return f"compares {one} with {two}".rstrip(",")


def mixed(operator: str, operands: tuple[Node, ...], shapes: list[Shape]) -> str:
    """That whole numbers and fractions cannot be calculated with together, and what to write: JSON's 10 is the one, and
    10.5 the other."""
    convert, kind = ("int", "integer") if operator == "%" else ("double", "fraction")
    words, cure = [], []
    for node, shape in zip(operands, shapes, strict=True):
        words.append(f"{named(node)} {_NUMBER_WORDS[shape.numbers]}")
        written = named(node).strip("`")
        if shape.numbers != {kind}:
            is_literal = isinstance(node, Const) and kind == "fraction"
            written = f"{written}.0" if is_literal else f"{convert}({written})"
        cure.append(written)
    rule = "divides whole numbers" if operator == "%" else "does not work with a whole number and a fraction together"
    return f"`{operator}` {rule}: {', '.join(words)}; write {f' {operator} '.join(cure)}"


_NUMBER_WORDS = {
    frozenset({"integer"}): "is a whole number",
    frozenset({"fraction"}): "has a fraction",
    frozenset({"integer", "fraction"}): "may be either",
}


def equals(value: Any, constant: Any) -> bool:
    """Whether two values are equal in CEL, where true is not 1."""
    return isinstance(value, bool) == isinstance(constant, bool) and bool(value == constant)

"""Texts for parts of an expression in messages."""

from __future__ import annotations

from typing import Any

from stepwell.core.cel.ast import Call, Const, Node, path
from stepwell.core.definition.problems import shown
from stepwell.event_types.shapes import Shape

_NAMES = {"bool": "true or false", "null": "null", "map": "an object", "list": "a list", "bytes": "bytes"}


def named(node: Node) -> str:
    """A path, constant or function as it is written in the expression; otherwise "the value"."""
    if isinstance(node, Const):
        return shown(node.value) if not isinstance(node.value, bytes) else "bytes"
    fields = path(node)
    if fields is None:
        return "`" + node.function.strip("_@") + "(...)`" if isinstance(node, Call) else "the value"
    return "`" + fields[0] + "".join(f".{f}" if f.isidentifier() else f"[{f!r}]" for f in fields[1:]) + "`"


def kinds_in_words(shape: Shape) -> str:
    """The kinds of a shape as text, such as "a string or null"."""
    return " or ".join(_NAMES.get(kind, f"a {kind}") for kind in sorted(shape.kinds))


def compared(operands: tuple[Node, ...], shapes: list[Shape]) -> str:
    """The text of a comparison, such as "compares `data.a`, a string, with 1, a number"."""
    one, two = (f"{named(node)}, {kinds_in_words(shape)}," for node, shape in zip(operands, shapes, strict=True))
    return f"compares {one} with {two}".rstrip(",")


def mixed(operator: str, operands: tuple[Node, ...], shapes: list[Shape]) -> str:
    """The message for an operator with a whole number and a fraction (10 and 10.5 in JSON), with the correction."""
    convert, kind = ("int", "integer") if operator == "%" else ("double", "fraction")
    descriptions, corrected = [], []
    for node, shape in zip(operands, shapes, strict=True):
        descriptions.append(f"{named(node)} {_NUMBER_WORDS[shape.numbers]}")
        written = named(node).strip("`")
        if shape.numbers != {kind}:
            is_literal = isinstance(node, Const) and kind == "fraction"
            written = f"{written}.0" if is_literal else f"{convert}({written})"
        corrected.append(written)
    rule = "divides whole numbers" if operator == "%" else "does not work with a whole number and a fraction together"
    return f"`{operator}` {rule}: {', '.join(descriptions)}; write {f' {operator} '.join(corrected)}"


_NUMBER_WORDS = {
    frozenset({"integer"}): "is a whole number",
    frozenset({"fraction"}): "has a fraction",
    frozenset({"integer", "fraction"}): "may be either",
}


def equals(value: Any, constant: Any) -> bool:
    """Whether two values are equal in CEL, where true is not 1."""
    return isinstance(value, bool) == isinstance(constant, bool) and bool(value == constant)

"""Finds the fields that `has()` proves to be present in parts of an expression."""

from __future__ import annotations

from stepwell.core.cel.ast import Call, Node, Path, Select, path

Paths = frozenset[Path]
_NONE: Paths = frozenset()
_ALIASES = {"user": ("event", "user"), "data": ("event", "data")}


def proven(node: Node, holds: bool) -> Paths:
    """The paths that are present if the node is true (`holds`), or if it is false."""
    if isinstance(node, Select) and node.test_only and holds:
        fields = canonical(path(Select(node.operand, node.field, False)))
        return frozenset(fields[:length] for length in range(1, len(fields) + 1))
    if isinstance(node, Call) and node.function == "!_":
        return proven(node.args[0], not holds)
    if isinstance(node, Call) and node.function == ("_&&_" if holds else "_||_"):
        return frozenset().union(*(proven(arg, holds) for arg in node.args))
    return _NONE


def canonical(fields: Path | None) -> Path:
    """The full path of a field: `user.id` becomes `event.user.id`."""
    return (*_ALIASES.get(fields[0], fields[:1]), *fields[1:]) if fields else ()

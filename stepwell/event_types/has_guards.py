"""What `has()` proves in an expression: the fields that are there wherever it was asked about them."""

from __future__ import annotations

from stepwell.core.cel.ast import Call, Node, Path, Select, path

Paths = frozenset[Path]
_NONE: Paths = frozenset()
_ALIASES = {"user": ("event", "user"), "data": ("event", "data")}


def proven(node: Node, holds: bool) -> Paths:
    """The paths that are there if the node is true, or if it is false."""
    if isinstance(node, Select) and node.test_only and holds:
        fields = canonical(path(Select(node.operand, node.field, False)))
        return frozenset(fields[:length] for length in range(1, len(fields) + 1))
    if isinstance(node, Call) and node.function == "!_":
        return proven(node.args[0], not holds)
    if isinstance(node, Call) and node.function == ("_&&_" if holds else "_||_"):
        return frozenset().union(*(proven(arg, holds) for arg in node.args))
    return _NONE


def canonical(fields: Path | None) -> Path:
    """`user.id` and `event.user.id` are one place."""
    return (*_ALIASES.get(fields[0], fields[:1]), *fields[1:]) if fields else ()

"""What no loop of an expression (all, exists, map, filter) may do, whatever is sent: judged by its tree alone."""

from __future__ import annotations

from collections.abc import Iterator

from stepwell.core.cel.ast import Call, Comprehension, Ident, Node, children, walk


def nesting(node: Node) -> int:
    """A loop over another's result counts as one in it: of map after map, the value grows as fast."""
    below = max((nesting(child) for child in children(node)), default=0)
    return below + isinstance(node, Comprehension)


def _loops(tree: Node) -> Iterator[Comprehension]:
    return (node for node in walk(tree) if isinstance(node, Comprehension))


def _calls(loop: Comprehension) -> Iterator[Call]:
    """All calls that are made each time round."""
    for part in (loop.condition, loop.step, loop.result):
        yield from (node for node in walk(part) if isinstance(node, Call))


def grows(tree: Node) -> bool:
    """Whether a `+` stands in a loop, other than the one that map and filter collect their results with."""
    return any(call.function == "_+_" and not _collects(call) for loop in _loops(tree) for call in _calls(loop))


def _collects(plus: Call) -> bool:
    # No user can write such a name: @ is not a letter of CEL.
    return isinstance(plus.args[0], Ident) and plus.args[0].name.startswith("@")

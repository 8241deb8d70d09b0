"""What the loops of an expression (all, exists, map, filter) may cost, as its tree tells.

One rule: what is judged is the tree alone; how much may be sent is judged where an expression is evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator

from stepwell.core.cel_ast import Call, Comprehension, Ident, Items, Node, children, walk


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


def is_quadratic(tree: Node) -> bool:
    """Whether it takes seconds for a list of ten thousand entries, which whoever sends an event may put into it:
    map and filter copy their result each time round, and `in` looks at each entry of what is no literal."""
    return any(
        (call.function == "_+_") == isinstance(call.args[1], Items)
        for loop in _loops(tree)
        for call in _calls(loop)
        if call.function in ("@in", "_+_")
    )


def names_outside(tree: Node) -> int:
    """How many loops deep something from outside of a loop is named in it: for each round anew, all of that may be
    compared, or copied into the result. 0: in none."""
    is_named = any(
        isinstance(node, Ident) and node.name != loop.variable and not node.name.startswith("@")
        for loop in _loops(tree)
        for part in (loop.condition, loop.step, loop.result)
        for node in walk(part)
    )
    return nesting(tree) if is_named else 0


def _collects(plus: Call) -> bool:
    # No user can write such a name: @ is not a letter of CEL.
    return isinstance(plus.args[0], Ident) and plus.args[0].name.startswith("@")

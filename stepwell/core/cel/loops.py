"""Properties of the loops in an expression (all, exists, map, filter), found from the syntax tree alone."""

from __future__ import annotations

from collections.abc import Iterator

from stepwell.core.cel.ast import Call, Comprehension, Ident, Node, children, walk


def nesting(node: Node) -> int:
    """How deeply loops are nested. A loop over another loop's result counts as nested: values grow as fast."""
    below = max((nesting(child) for child in children(node)), default=0)
    return below + isinstance(node, Comprehension)


def _loops(tree: Node) -> Iterator[Comprehension]:
    return (node for node in walk(tree) if isinstance(node, Comprehension))


def _calls(loop: Comprehension) -> Iterator[Call]:
    """All calls in each iteration of a loop."""
    for part in (loop.condition, loop.step, loop.result):
        yield from (node for node in walk(part) if isinstance(node, Call))


def grows(tree: Node) -> bool:
    """Whether a loop contains a `+`, other than the one with which map and filter collect results."""
    return any(call.function == "_+_" and not _collects(call) for loop in _loops(tree) for call in _calls(loop))


def _collects(plus: Call) -> bool:
    # Only the library makes such names: users cannot write @ in CEL.
    return isinstance(plus.args[0], Ident) and plus.args[0].name.startswith("@")

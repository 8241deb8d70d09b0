"""Which expressions are refused when they are compiled, since the CEL library bounds neither the growth of values nor
the cost of comparing them."""

from __future__ import annotations

from functools import cache
from typing import Any

from stepwell.core.cel.ast import Call, Const, Items, Node, walk
from stepwell.core.cel.cost import hopeless
from stepwell.core.cel.errors import ExpressionError, value_problem
from stepwell.core.cel.library import ERROR, environment
from stepwell.core.cel.loops import grows, nesting
from stepwell.core.cel.scope import Scope

MAX_SOURCE_BYTES = 2048
_MAX_NESTING = 2
_MAX_REGEX = 200


def check_source(source: str) -> None:
    """Raises ExpressionError for a text that is too long to be an expression."""
    try:
        size = len(source.encode())
    except UnicodeEncodeError:
        raise ExpressionError("the expression holds half a character (a lone surrogate); remove it") from None
    if size > MAX_SOURCE_BYTES:
        raise ExpressionError(f"the expression is longer than {MAX_SOURCE_BYTES:,} bytes; move the logic into a step")


def check_tree(tree: Node) -> None:
    """Raises ExpressionError for loops that nest too deep or build values, and for patterns that RE2 refuses."""
    if nesting(tree) > _MAX_NESTING:
        raise ExpressionError(
            f"all, exists, map and filter may stand in each other, or follow each other, {_MAX_NESTING} deep; "
            "move the logic into a step"
        )
    if grows(tree):
        raise ExpressionError("+ inside all, exists, map or filter is not allowed; move the logic into a step")
    patterns = [_pattern(node.args[-1]) for node in walk(tree) if isinstance(node, Call) and node.function == "matches"]
    tried: list[Node] = []
    for pattern in patterns:
        probe = _regex_probe().eval(data={"data": pattern})
        if probe.type() == ERROR:  # found only when it is used; found here, when the definition is loaded
            raise ExpressionError(value_problem(probe.value()))
        tried.append(Call("matches", None, (Const(""), Const(pattern))))
        if hopeless(Items(tuple(tried))):
            return  # it is never evaluated, so that the others need not be tried, which may take as long


def _pattern(node: Node) -> str:
    if not isinstance(node, Const) or not isinstance(node.value, str):
        raise ExpressionError("the pattern of matches() must be a literal text")
    if len(node.value) > _MAX_REGEX:
        raise ExpressionError(f"the pattern of matches() may have {_MAX_REGEX} characters")
    return node.value


@cache
def _regex_probe() -> Any:
    return environment(Scope.TRIGGER).compile("''.matches(data)")

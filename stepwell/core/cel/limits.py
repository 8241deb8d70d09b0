"""The limits that an expression is checked against when it is compiled.

The CEL library does not limit the growth of values or the cost of comparing them.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from stepwell.core.cel.ast import Call, Const, Items, Node, walk
from stepwell.core.cel.cost import always_too_costly
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
        raise ExpressionError("the expression contains half a character (a lone surrogate); remove it") from None
    if size > MAX_SOURCE_BYTES:
        raise ExpressionError(f"the expression is longer than {MAX_SOURCE_BYTES:,} bytes; move the logic into a step")


def check_tree(tree: Node) -> None:
    """Raises ExpressionError for loops that are nested too deeply or build values, and for patterns RE2 refuses."""
    if nesting(tree) > _MAX_NESTING:
        raise ExpressionError(
            f"all, exists, map and filter are nested or chained more than {_MAX_NESTING} deep;"
            " move the logic into a step"
        )
    if grows(tree):
        raise ExpressionError("+ inside all, exists, map or filter is not allowed; move the logic into a step")
    patterns = [_pattern(node.args[-1]) for node in walk(tree) if isinstance(node, Call) and node.function == "matches"]
    tried: list[Node] = []
    for pattern in patterns:
        probe = _regex_probe().eval(data={"data": pattern})
        if probe.type() == ERROR:  # the library checks a pattern only on use; this reports it when the definition loads
            reason = value_problem(probe.value()).removeprefix("invalid regular expression: ")
            raise ExpressionError(f"the pattern of matches() is not a valid regular expression: {reason}")
        tried.append(Call("matches", None, (Const(""), Const(pattern))))
        if always_too_costly(Items(tuple(tried))):
            return  # the expression is never evaluated, and testing the other patterns may take as long


def _pattern(node: Node) -> str:
    if not isinstance(node, Const) or not isinstance(node.value, str):
        raise ExpressionError("the pattern of matches() must be a text in quotes, not a computed value")
    if len(node.value) > _MAX_REGEX:
        raise ExpressionError(f"the pattern of matches() is longer than {_MAX_REGEX} characters; shorten it")
    return node.value


@cache
def _regex_probe() -> Any:
    return environment(Scope.TRIGGER).compile("''.matches(data)")

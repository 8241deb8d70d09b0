"""CEL expressions. The one module that knows the CEL library (Google's C++ implementation).

Its one rule: only a value of type BOOL that is True is a match. The library's errors are values too, and their plain
value is a truthy text.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from enum import Enum
from functools import cache, lru_cache
from typing import Any

from cel_expr_python import cel

from stepwell.core.cel_ast import Call, Comprehension, Const, Ident, Node, Select, children, decode, path, walk
from stepwell.core.messages import Answer

MAX_SOURCE_BYTES = 2048
_MAX_NESTING = 2
_MAX_REGEX = 200
_ERROR = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
_STATUS = re.compile(r"^[A-Z_]+: |\s*\[[A-Z_]+\]\s*$")


class Scope(Enum):
    """Where an expression stands, and so which variables it has."""

    TRIGGER = ("event", "user", "data")
    CONDITION = ("event", "user", "data", "steps", "errors", "response")
    MATCH = ("event", "user", "data", "steps", "errors", "response", "async")


class ExpressionError(ValueError):
    """An expression that cannot be used, and the place in it (from 1) that is wrong."""

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.message, self.line, self.column = message, line, column


class Bindings:
    """The values of the variables; expressions about one event share one."""

    def __init__(
        self,
        event: dict[str, Any],
        steps: dict[str, Any] | None = None,
        errors: dict[str, Any] | None = None,
        response: Any = None,
        async_event: dict[str, Any] | None = None,
    ) -> None:
        self._values = {
            "event": event,
            "user": event.get("user") or {},
            "data": event.get("data") or {},
            "steps": steps or {},
            "errors": errors or {},
            "response": response,
            "async": async_event,
        }
        self._activations: dict[Scope, Any] = {}

    def activation(self, scope: Scope) -> Any:
        found = self._activations.get(scope)
        if found is None:
            values = {name: self._values[name] for name in scope.value}
            found = self._activations[scope] = _environment(scope).Activation(values)
        return found


class Expression:
    """A compiled expression. Made by `compile_expression`."""

    def __init__(self, source: str, scope: Scope, compiled: Any, tree: Node) -> None:
        self.source, self.scope, self.tree = source, scope, tree
        self._compiled = compiled
        self.step_names = frozenset(_step_names(tree))

    def evaluate(self, bindings: Bindings) -> Answer:
        """True, or not, and why it has no value if it has none."""
        result = self._compiled.eval(bindings.activation(self.scope))
        kind = result.type()
        if kind == cel.Type.BOOL:
            return _YES if result.value() is True else _NO
        if kind == cel.Type.ERROR:
            return Answer(False, _short(str(result.plain_value())))
        return Answer(False, f"it is {kind.name().lower()}, not true or false")


_YES, _NO = Answer(True), Answer(False)


@lru_cache(maxsize=4096)
def compile_expression(source: str, scope: Scope) -> Expression:
    """Compile and check an expression. Raises ExpressionError with the place that is wrong."""
    if len(source.encode(errors="replace")) > MAX_SOURCE_BYTES:
        raise ExpressionError(f"the expression is longer than {MAX_SOURCE_BYTES} bytes; move the logic into a step")
    try:
        compiled = _environment(scope).compile(source)
    except Exception as error:  # the library raises bare RuntimeErrors and worse
        raise _compile_error(str(error), scope) from None
    if compiled.return_type() not in (cel.Type.BOOL, cel.Type.DYN):
        kind = compiled.return_type().name().lower()
        raise ExpressionError(f"the expression is {kind}; it must be true or false")
    tree = decode(compiled.serialize())
    _guard(tree)
    return Expression(source, scope, compiled, tree)


@cache
def _environment(scope: Scope) -> Any:
    return cel.NewEnv(variables=dict.fromkeys(scope.value, cel.Type.DYN))


def _compile_error(text: str, scope: Scope) -> ExpressionError:
    found = _ERROR.search(text)
    if found is None:
        return ExpressionError(_short(text))
    line, column, message = int(found[1]), int(found[2]), found[3]
    message = message.removesuffix(" (in container '')")
    unknown = re.match(r"undeclared reference to '([\w.]+)'", message)
    if unknown is not None:
        name = unknown[1].split(".")[0]
        near = difflib.get_close_matches(name, scope.value, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(scope.value)}"
        message = f"{message}; {hint}"
    return ExpressionError(message, line, max(1, column))


def _short(text: str) -> str:
    first = _STATUS.sub("", text.strip().partition("\n")[0])
    return first[:200]


# --- guards: the library bounds neither the growth of values nor the cost of nested loops --------------------------


def _guard(tree: Node) -> None:
    if _nesting(tree) > _MAX_NESTING:
        raise ExpressionError(
            f"all, exists, map and filter may be nested {_MAX_NESTING} deep; move the logic into a step"
        )
    if any(_grows(node) for node in walk(tree) if isinstance(node, Comprehension)):
        raise ExpressionError("+ inside all, exists, map or filter is not allowed; move the logic into a step")
    for node in walk(tree):
        if isinstance(node, Call) and node.function == "matches":
            pattern = node.args[-1]
            if not isinstance(pattern, Const) or not isinstance(pattern.value, str):
                raise ExpressionError("the pattern of matches() must be a literal text")
            if len(pattern.value) > _MAX_REGEX:
                raise ExpressionError(f"the pattern of matches() may have {_MAX_REGEX} characters")


def _nesting(node: Node) -> int:
    below = max((_nesting(child) for child in children(node)), default=0)
    return below + isinstance(node, Comprehension)


def _grows(loop: Comprehension) -> bool:
    """Whether a `+` stands in a loop, other than the one that map and filter collect their results with."""
    parts = (loop.condition, loop.step, loop.result)
    return any(
        isinstance(node, Call) and node.function == "_+_" and not _collects(node)
        for part in parts
        for node in walk(part)
    )


def _collects(plus: Call) -> bool:
    return isinstance(plus.args[0], Ident) and plus.args[0].name.startswith("@")


def _step_names(tree: Node) -> Iterator[str]:
    for node in walk(tree):
        its_path = path(Select(node.operand, node.field, False)) if isinstance(node, Select) else path(node)
        if its_path is not None and len(its_path) >= 2 and its_path[0] in ("steps", "errors"):
            yield its_path[1]

"""CEL expressions: compiled once, evaluated with `Bindings`.

Its one rule: only a value of type BOOL that is True is a match.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from stepwell.core.cel import parse_json
from stepwell.core.cel.answer import Answer
from stepwell.core.cel.ast import Ident, Node, decode, step_names, walk
from stepwell.core.cel.ast import paths as paths_of
from stepwell.core.cel.bindings import Bindings, Value
from stepwell.core.cel.cost import TooMuch, check_cost, harmless_length, hopeless
from stepwell.core.cel.errors import ExpressionError, compile_problem
from stepwell.core.cel.library import BOOL, DYN, ERROR, environment, type_name
from stepwell.core.cel.limits import check_source, check_tree
from stepwell.core.cel.scope import Scope
from stepwell.core.cel.sizes import Measured
from stepwell.core.cel.values import is_json

__all__ = [
    "EFFORT",
    "Bindings",
    "Expression",
    "ExpressionError",
    "Scope",
    "Value",
    "compile_expression",
    "compile_value",
]


class Effort:
    """Estimated nanoseconds of all expensive evaluations so far. Callers with many evaluations read it to know when to
    let others have their turn."""

    spent: float = 0


EFFORT = Effort()


class Expression:
    """A compiled expression, made by the functions below. `step_names`: ids it names as `steps.x` or `errors['x']`.
    `steps_read`: those whose outputs and errors it needs; None: all. `variables`: those it names; `paths`: places in
    them. `texts`: what it calls `parse_json` with, whose values are variables, too."""

    def __init__(
        self, source: str, scope: Scope, compiled: Any, tree: Node, texts: Sequence[Expression] = (), *, is_given: bool
    ) -> None:
        self.source, self.scope, self.tree, self.texts = source, scope, tree, texts
        self.step_names = frozenset(step_names(tree))
        named = {node.name for node in walk(tree) if isinstance(node, Ident)}
        self.variables = tuple(name for name in (*scope.value, *parse_json.VARIABLES) if name in named)
        self._compiled, self._is_given = compiled, is_given
        self.paths = tuple(paths_of(tree))
        self.steps_read = None if {("steps",), ("errors",)} & set(self.paths) else self.step_names
        self._harmless = harmless_length(tree, is_given=is_given)

    def check(self) -> None:
        """Raises ExpressionError for an expression that takes too long whatever is sent. Compiling does not raise it,
        so that stored definitions stay usable."""
        if self._harmless == 0 and (on := hopeless(self.tree)):
            raise ExpressionError(
                f"it takes too long whatever is sent: {on}; repeat less, as with + instead of a count"
            )

    def evaluate(self, bindings: Bindings) -> Answer:
        """Whether the value is true. `problem` says why there is no value, or no boolean. Never raises."""
        if self.texts:
            bindings = bindings.with_parsed(self.texts)
        result, value = self._result(bindings)
        if result is None:
            return Answer(False, value)
        if value is True:  # no other type has such a value, and asking for the type takes longer than all of this
            return _YES
        if value is False:
            return _NO
        if result.type() == ERROR:
            return Answer(False, bindings.problem(value))
        return Answer(False, f"is {type_name(result.type())}, not true or false")

    def value(self, bindings: Bindings) -> Value:
        """The value, or why there is none. Never raises."""
        if self.texts:
            bindings = bindings.with_parsed(self.texts)
        result, value = self._result(bindings)
        if result is None:
            return Value(None, value)
        if result.type() == ERROR:
            return Value(None, bindings.problem(value))
        value = result.plain_value()
        if not is_json(value):
            return Value(None, f"is or holds {type_name(result.type())}, which JSON has not; convert it with string()")
        return Value(value)

    def _result(self, bindings: Bindings) -> tuple[Any, Any]:
        """The library's result, which may be an error, and its value; or None, and why it cannot be evaluated."""
        bound = bindings.activation(self.variables, self.paths)
        if bound.length > self._harmless:
            try:
                sizes = Measured(bound.values)
                EFFORT.spent += check_cost(self.tree, sizes, sizes.size(()), is_given=self._is_given)
            except TooMuch as why:
                return None, str(why)
        try:
            result = self._compiled.eval(bound.activation)
            return result, result.value()
        except Exception as error:  # the library raises RuntimeErrors and worse, also for what an event holds
            return None, bindings.problem(str(error))


_YES, _NO = Answer(True), Answer(False)


@lru_cache(maxsize=4096)
def compile_expression(source: str, scope: Scope) -> Expression:
    """Compile and check a condition. Raises ExpressionError with the place that is wrong."""
    return _compile(source, scope, is_condition=True)


@lru_cache(maxsize=1024)
def compile_value(source: str, scope: Scope) -> Expression:
    """Compile and check an expression of any type, to be used for its `value`. Raises ExpressionError."""
    return _compile(source, scope, is_condition=False)


def _compile(source: str, scope: Scope, *, is_condition: bool, is_argument: bool = False) -> Expression:
    check_source(source)
    rewritten, texts = source, list[str]()
    if scope.has_parse_json:
        if not is_argument and (reserved := parse_json.NAMED.search(source)):
            raise ExpressionError(f"there is no variable `{reserved[0]}`", 1, reserved.start() + 1)
        try:
            rewritten, texts = parse_json.without_calls(source)
        except parse_json.TooMany as error:
            raise ExpressionError(str(error)) from None
    arguments = [_compile(text, scope, is_condition=False, is_argument=True) for text in texts]
    try:
        compiled = environment(scope).compile(rewritten)
    except Exception as error:  # the library raises bare RuntimeErrors and worse
        raise ExpressionError(*compile_problem(str(error), source, scope.value, Scope.MATCH.value)) from None
    if is_condition and compiled.return_type() not in (BOOL, DYN):
        kind = type_name(compiled.return_type())
        raise ExpressionError(f"the expression is {kind}, and it must be true or false; compare it with something")
    tree = decode(compiled.serialize())
    check_tree(tree)
    return Expression(source, scope, compiled, tree, arguments, is_given=not is_condition)

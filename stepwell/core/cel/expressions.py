"""CEL expressions: compiled once, then evaluated with `Bindings`.

A condition holds only if the value has the type BOOL and is True. Errors are values too, and count as not true.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from stepwell.core.cel import parse_json
from stepwell.core.cel.answer import Answer
from stepwell.core.cel.ast import Ident, Node, decode, step_names, walk
from stepwell.core.cel.ast import path as path_of
from stepwell.core.cel.ast import paths as paths_of
from stepwell.core.cel.bindings import Bindings, Value
from stepwell.core.cel.cost import TooCostly, always_too_costly, check_cost, harmless_length
from stepwell.core.cel.errors import ExpressionError, compile_problem
from stepwell.core.cel.library import BOOL, DYN, ERROR, TIMES, environment, type_name
from stepwell.core.cel.limits import check_source, check_tree
from stepwell.core.cel.moments import NoMoment, moment_of
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
    "compile_moment",
    "compile_value",
]


class Effort:
    """The estimated nanoseconds of all expensive evaluations in this process so far.

    A caller with many evaluations reads it to decide when to pause for other work.
    """

    spent: float = 0


EFFORT = Effort()


class Expression:
    """A compiled expression. `compile_expression` and `compile_value` make one.

    `variables`: the variables that it names; `paths`: the paths below them. `step_names`: the ids of steps that it
    names, as in `steps.x` or `errors['x']`; `steps_read`: those whose outputs and errors it needs, None for all steps.
    `texts`: the arguments of its calls of `parse_json`; their parsed values are variables too.
    """

    def __init__(
        self,
        source: str,
        scope: Scope,
        compiled: Any,
        tree: Node,
        texts: Sequence[Expression] = (),
        *,
        returns_value: bool,
    ) -> None:
        self.source, self.scope, self.tree, self.texts = source, scope, tree, texts
        self.step_names = frozenset(step_names(tree))
        named = {node.name for node in walk(tree) if isinstance(node, Ident)}
        self.variables = tuple(name for name in (*scope.value, *parse_json.VARIABLES) if name in named)
        self._compiled, self._returns_value = compiled, returns_value
        self.paths = tuple(paths_of(tree))
        self.steps_read = None if {("steps",), ("errors",)} & set(self.paths) else self.step_names
        self._path = path_of(tree)  # of an expression that only reads a field, such as `body.kind`
        self._harmless = harmless_length(tree, returns_value=returns_value)

    @property
    def kind(self) -> Any:
        """The type of the value as the library infers it; DYN if it depends on the variables."""
        return self._compiled.return_type()

    def check(self) -> None:
        """Raises ExpressionError if the expression is too slow for any event.

        Compiling does not raise this error, so that definitions stored before the limit existed stay usable.
        """
        if self._harmless == 0 and (on := always_too_costly(self.tree)):
            raise ExpressionError(
                f"the expression takes too long for any event: {on}; repeat less, for example with + instead of a count"
            )

    def evaluate(self, bindings: Bindings) -> Answer:
        """Whether the value is true. The answer has a `problem` if there is no value or no boolean. Never raises."""
        if self.texts:
            bindings = bindings.with_parsed(self.texts)
        result, value = self._result(bindings)
        if result is None:
            return Answer(False, value)
        if value is True:  # no other type has this value, and reading the type is the slowest part
            return _YES
        if value is False:
            return _NO
        if result.type() == ERROR:
            return Answer(False, bindings.problem(value))
        return Answer(False, f"the value is {type_name(result.type())}, not true or false")

    def value(self, bindings: Bindings) -> Value:
        """The value as JSON data, or the reason why there is none. Never raises."""
        if self._path is not None and (text := bindings.plain_text(self._path)) is not None:
            return Value(text)
        if self.texts:
            bindings = bindings.with_parsed(self.texts)
        result, value = self._result(bindings)
        if result is None:
            return Value(None, value)
        if result.type() == ERROR:
            return Value(None, bindings.problem(value))
        value = result.plain_value()
        if not is_json(value):
            kind = type_name(result.type())
            return Value(
                None, f"the value is or contains {kind}, which JSON cannot represent; convert it with string()"
            )
        return Value(value)

    def moment(self, bindings: Bindings) -> Value:
        """The point in time that the value is, in ms since the epoch, or the reason why it is none. Never raises."""
        result, value = self._result(bindings)
        if result is None:
            return Value(None, value)
        if result.type() == ERROR:
            return Value(None, bindings.problem(value))
        try:
            return Value(moment_of(result.plain_value(), type_name(result.type())))
        except NoMoment as error:
            return Value(None, str(error))

    def _result(self, bindings: Bindings) -> tuple[Any, Any]:
        """The library's result and its plain value; the result may be an error. None and a reason if not evaluated."""
        bound = bindings.activation(self.variables, self.paths)
        if bound.length > self._harmless:
            try:
                sizes = Measured(bound.values)
                EFFORT.spent += check_cost(self.tree, sizes, sizes.size(()), returns_value=self._returns_value)
            except TooCostly as error:
                return None, str(error)
        try:
            result = self._compiled.eval(bound.activation)
            return result, result.value()
        except Exception as error:  # the library raises RuntimeError and others, also because of values in an event
            return None, bindings.problem(str(error))


_YES, _NO = Answer(True), Answer(False)


@lru_cache(maxsize=4096)
def compile_expression(source: str, scope: Scope) -> Expression:
    """Compiles and checks a condition. Raises ExpressionError with the place of the error."""
    return _compile(source, scope, is_condition=True)


@lru_cache(maxsize=1024)
def compile_moment(source: str, scope: Scope) -> Expression:
    """Compiles and checks an expression whose `moment` is used. Raises ExpressionError, also for a type of which no
    value is a time."""
    expression = compile_value(source, scope)
    problem = None
    if expression.kind not in TIMES:
        problem = f"the expression is {type_name(expression.kind)}, which is no time; use timestamp(...)"
    elif not expression.variables:  # it always has the same value
        problem = expression.moment(Bindings({})).problem
    if problem is not None:
        raise ExpressionError(problem, 1, 1)
    return expression


@lru_cache(maxsize=1024)
def compile_value(source: str, scope: Scope) -> Expression:
    """Compiles and checks an expression of any type, whose `value` is used. Raises ExpressionError."""
    return _compile(source, scope, is_condition=False)


def _compile(source: str, scope: Scope, *, is_condition: bool, is_argument: bool = False) -> Expression:
    check_source(source)
    rewritten, texts = source, list[str]()
    if scope.has_parse_json:
        if not is_argument and (reserved := parse_json.NAMED.search(source)):
            raise ExpressionError(f"there is no variable `{reserved[0]}`", 1, reserved.start() + 1)
        try:
            rewritten, texts = parse_json.replace_calls(source)
        except parse_json.TooManyCalls as error:
            raise ExpressionError(str(error)) from None
    arguments = [_compile(text, scope, is_condition=False, is_argument=True) for text in texts]
    try:
        has_base64 = scope.has_base64 and "base64." in source
        compiled = environment(scope, has_base64=has_base64).compile(rewritten)
    except Exception as error:  # the library raises RuntimeError and others
        raise ExpressionError(*compile_problem(str(error), source, scope.value, Scope.MATCH.value)) from None
    if is_condition and compiled.return_type() not in (BOOL, DYN):
        kind = type_name(compiled.return_type())
        raise ExpressionError(f"the expression is {kind}, but must be true or false; compare it with a value")
    tree = decode(compiled.serialize())
    check_tree(tree)
    return Expression(source, scope, compiled, tree, arguments, returns_value=not is_condition)

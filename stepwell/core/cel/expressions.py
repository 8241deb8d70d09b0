"""CEL expressions. The one module that knows the CEL library (Google's C++ implementation).

Its one rule: only a value of type BOOL that is True is a match. Errors are values to the library, and their plain value
is a truthy text; other errors, such as a loop that takes too long, are raised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache, lru_cache
from typing import Any, NamedTuple

from cel_expr_python import cel

from stepwell.core.cel import parse_json
from stepwell.core.cel.answer import Answer
from stepwell.core.cel.ast import (
    Call,
    Const,
    Ident,
    Items,
    Node,
    Path,
    decode,
    step_names,
    walk,
)
from stepwell.core.cel.ast import paths as paths_of
from stepwell.core.cel.cost import TooMuch, check_cost, harmless_length, hopeless
from stepwell.core.cel.errors import compile_problem, value_problem
from stepwell.core.cel.immortal_none import make_none_immortal
from stepwell.core.cel.loops import grows, nesting
from stepwell.core.cel.sizes import Measured, json_of
from stepwell.core.cel.values import is_json, only, without_nul

make_none_immortal()  # before the library returns its first null

MAX_SOURCE_BYTES = 2048
_MAX_NESTING = 2
_MAX_REGEX = 200
_LARGE = 16 * 1024  # bytes as JSON
_UNKNOWN = 1 << 60  # bytes, of what is no JSON


class Scope(Enum):
    """Where an expression stands, and so which variables it has."""

    TRIGGER = ("event", "user", "data")
    CANCEL = ("event", "user", "data", "async")
    CONDITION = ("event", "user", "data", "steps", "errors", "response")
    MATCH = ("event", "user", "data", "steps", "errors", "response", "async")
    MESSAGE = ("event", "user", "data", "steps", "errors")
    WEBHOOK = ("body", "headers", "query")
    CHALLENGE = ("body", "headers", "query", "signature")


_OF_REQUESTS = (Scope.WEBHOOK, Scope.CHALLENGE)  # they have parse_json, too


class ExpressionError(ValueError):
    """An expression that cannot be used, and the place in it (line and column, from 1) that is wrong."""

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.message, self.line, self.column = message, line, column


class Effort:
    """What all evaluations may have taken so far that were not cheap, in nanoseconds: for whoever has many to do, and
    is to do something else in between."""

    spent: float = 0


EFFORT = Effort()


class Bound(NamedTuple):
    """Values of variables. `length`: as JSON, in bytes."""

    activation: Any
    values: dict[str, Any]
    length: int


class Bindings:
    """The values of the variables, plain JSON data; expressions about one event share one.

    The library copies what it is given, so that a value is handed over only if an expression names its variable.
    """

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
            "signature": None,
        }
        self._unread: dict[str, str] = {}  # variables of `parse_json` without a value, and why
        self._parsed: dict[str, Any] = {}  # by text
        self._bound: dict[tuple[Any, ...], Bound] = {}

    @classmethod
    def of_request(cls, body: Any, headers: dict[str, Any], query: dict[str, Any]) -> Bindings:
        """What a webhook was sent, for expressions of `Scope.WEBHOOK`."""
        bindings = cls({})
        bindings._values |= {"body": body, "headers": headers, "query": query}
        return bindings

    @classmethod
    def of_wait(cls, known: dict[str, Any], async_event: dict[str, Any]) -> Bindings:
        """An incoming event, and what a wait keeps of its run: variables, with as much in them as its `match` names."""
        bindings = cls({})
        bindings._values |= {**known, "async": async_event}
        return bindings

    def with_signature(self, text: str) -> Bindings:
        """The same, and the signature that a challenge asks for, for an expression of `Scope.CHALLENGE`."""
        bindings = Bindings({})
        bindings._values = self._values | {"signature": text}
        return bindings

    def with_parsed(self, texts: Sequence[Expression]) -> Bindings:
        """The same, and the values of JSON texts that `parse_json` is called with."""
        bindings = Bindings({})
        bindings._values, bindings._parsed = dict(self._values), self._parsed
        for variable, text in zip(parse_json.VARIABLES, texts, strict=False):
            found = text.value(bindings)
            try:
                bindings._values[variable] = parse_json.json_value(found.value, self._parsed)
            except ValueError as error:
                bindings._unread[variable] = found.problem or str(error)
        return bindings

    def problem(self, text: str) -> str:
        """Why there is no value, of what the library says."""
        unread = parse_json.NAMED.search(text)
        return (unread and self._unread.get(unread[0])) or value_problem(text)

    def activation(self, variables: tuple[str, ...], paths: tuple[Path, ...] = ()) -> Bound:
        """The variables as the library takes them. Of large ones only what these paths lead to, if any are named, since
        it converts all that it gets."""
        found = self._bound.get(variables) or (self._bound.get(paths) if paths else None)
        if found is None:
            key: tuple[Any, ...] = variables
            values = {name: self._values[name] for name in variables if name not in self._unread}
            text = json_of(values)
            if paths and (text is None or len(text) > _LARGE):
                key, values = paths, only(values, paths)
                text = json_of(values)
            # The library would end a text at a NUL, so that "ada\0eve" were "ada".
            has_nul = text is None or b"\\u0000" in text
            activation = _everywhere().Activation(without_nul(values) if has_nul else values)
            found = self._bound[key] = Bound(activation, values, _UNKNOWN if text is None else len(text))
        return found


@dataclass(frozen=True, slots=True)
class Value:
    """What an expression gives, as plain JSON data. `problem` says why there is no value."""

    value: Any
    problem: str | None = None


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
        """Raises ExpressionError if it takes too long whatever is sent, so that it never has a value. (Compiling does
        not, since what is stored must stay usable.)"""
        if self._harmless == 0 and (on := hopeless(self.tree)):
            raise ExpressionError(
                f"it takes too long whatever is sent: {on}; repeat less, as with + instead of a count"
            )

    def evaluate(self, bindings: Bindings) -> Answer:
        """Whether it is true, and if it has no value, or one that is neither true nor false, why. Never raises."""
        if self.texts:
            bindings = bindings.with_parsed(self.texts)
        result, value = self._result(bindings)
        if result is None:
            return Answer(False, value)
        if value is True:  # no other type has such a value, and asking for the type takes longer than all of this
            return _YES
        if value is False:
            return _NO
        if result.type() == cel.Type.ERROR:
            return Answer(False, bindings.problem(value))
        return Answer(False, f"is {_kind(result.type())}, not true or false")

    def value(self, bindings: Bindings) -> Value:
        """Its value. Never raises."""
        if self.texts:
            bindings = bindings.with_parsed(self.texts)
        result, value = self._result(bindings)
        if result is None:
            return Value(None, value)
        if result.type() == cel.Type.ERROR:
            return Value(None, bindings.problem(value))
        value = result.plain_value()
        if not is_json(value):
            return Value(None, f"is or holds {_kind(result.type())}, which JSON has not; convert it with string()")
        return Value(value)

    def _result(self, bindings: Bindings) -> tuple[Any, Any]:
        """What the library answers, which may be an error, and its value; or None, and why it cannot be evaluated."""
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
    try:
        size = len(source.encode())
    except UnicodeEncodeError:
        raise ExpressionError("the expression holds half a character (a lone surrogate); remove it") from None
    if size > MAX_SOURCE_BYTES:
        raise ExpressionError(f"the expression is longer than {MAX_SOURCE_BYTES:,} bytes; move the logic into a step")
    rewritten, texts = source, list[str]()
    if scope in _OF_REQUESTS:
        if not is_argument and (reserved := parse_json.NAMED.search(source)):
            raise ExpressionError(f"there is no variable `{reserved[0]}`", 1, reserved.start() + 1)
        try:
            rewritten, texts = parse_json.without_calls(source)
        except parse_json.TooMany as error:
            raise ExpressionError(str(error)) from None
    arguments = [_compile(text, scope, is_condition=False, is_argument=True) for text in texts]
    try:
        compiled = _environment(scope).compile(rewritten)
    except Exception as error:  # the library raises bare RuntimeErrors and worse
        raise ExpressionError(*compile_problem(str(error), source, scope.value, Scope.MATCH.value)) from None
    if is_condition and compiled.return_type() not in (cel.Type.BOOL, cel.Type.DYN):
        kind = _kind(compiled.return_type())
        raise ExpressionError(f"the expression is {kind}, and it must be true or false; compare it with something")
    tree = decode(compiled.serialize())
    _guard(tree)
    return Expression(source, scope, compiled, tree, arguments, is_given=not is_condition)


@cache
def _environment(scope: Scope) -> Any:
    more = parse_json.VARIABLES if scope in _OF_REQUESTS else ()
    return cel.NewEnv(variables=dict.fromkeys((*scope.value, *more), cel.Type.DYN))


@cache
def _everywhere() -> Any:
    """All variables that there are anywhere."""
    names = {name for scope in Scope for name in scope.value}
    return cel.NewEnv(variables=dict.fromkeys((*names, *parse_json.VARIABLES), cel.Type.DYN))


def _kind(of: Any) -> str:
    """A type with its article: a string, an int, null."""
    name = str(of.name()).lower().partition("<")[0]
    if name in ("null", "bytes"):
        return name
    return f"{'an' if name[0] in 'aeio' else 'a'} {name}"


# --- guards: the library bounds neither the growth of values nor the cost of comparing them ------------------------


def _guard(tree: Node) -> None:
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
        if probe.type() == cel.Type.ERROR:  # found only when it is used; found here, when the definition is loaded
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
    return _environment(Scope.TRIGGER).compile("''.matches(data)")

"""Translates errors of the CEL library into messages for the author of an expression.

A message that is not recognised here is passed on without the library's codes, cut at 200 characters.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from functools import lru_cache

from stepwell.core.cel.parse_json import PARSE_JSON

# The library begins each excerpt of the source with " | ", so no source can look like an error.
_ERRORS = re.compile(r"^(?:[A-Z_]+: )?ERROR: <input>:(-?\d+):(-?\d+): (.*)", re.MULTILINE)
_CODES = re.compile(r"^(?:[A-Z_]+: )+|\s*\[[A-Z_]+\]\s*$")
_UNDECLARED = re.compile(r"undeclared reference to '([^']*)'")
_UNEXPECTED = re.compile(
    r"Syntax error: (?:mismatched input|extraneous input|missing .* at|token recognition error at:"
    r"|no viable alternative at input) '(.*?)'(?: expecting .*)?$"
)
_OVERLOAD = re.compile(
    r"found no matching overload for '(?P<function>\S+)' applied to '(?P<types>.*)'"
    r"|No matching overloads found : (?:\((?P<target>\w+)\)\.)?(?P<operator>[^\s(]+)(?:\((?P<arguments>.*)\))?$"
)
FUNCTIONS = (
    *("all", "bool", "bytes", "contains", "double", "duration", "dyn", "endsWith", "exists", "exists_one", "filter"),
    *("getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getFullYear", "getHours", "getMilliseconds"),
    *("getMinutes", "getMonth", "getSeconds", "has", "int", "map", "matches", "size", "startsWith", "string"),
    *("timestamp", "type", "uint"),
)
_NUMBERS = {"int": "a whole number", "double": "a number with a fraction", "uint": "a whole number without a sign"}
_MEANT = {"=": "==", "&": "&&", "|": "||", "and": "&&", "or": "||", "not": "!", "is": "=="}


class ExpressionError(ValueError):
    """The expression cannot be used. `line` and `column` (from 1) are the place of the error in it."""

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.message, self.line, self.column = message, line, column


def compile_problem(text: str, source: str, variables: Sequence[str], elsewhere: Sequence[str]) -> tuple[str, int, int]:
    """The message, line and column (from 1) of the error in `source`. `text`: the library's error.

    `variables` are those of this expression; `elsewhere` are those that expressions in other fields have.
    """
    errors = [(max(1, int(line)), max(1, int(column)), message) for line, column, message in _ERRORS.findall(text)]
    if not errors:
        return _syntax(_plain(text)), 1, 1
    lines = source.split("\n")
    for line, column, message in errors:  # a misspelt macro causes unknown variables too, which are listed before it
        unknown = _UNDECLARED.match(message)
        if unknown and lines[line - 1][column - 1 : column] == "(":
            return _no_function(unknown[1]), line, max(1, column - len(unknown[1]))
    line, column, message = errors[0]
    if unknown := _UNDECLARED.match(message):
        name = unknown[1].removeprefix(".").split(".")[0]
        start = lines[line - 1].rfind(name, 0, column + len(name) - 1)  # the library gives the place of the last dot
        return _no_variable(name, variables, elsewhere), line, start + 1 if start >= 0 else column
    return _syntax(message), line, column


@lru_cache(maxsize=1024)  # the same key is often missing in many events
def value_problem(text: str) -> str:
    """The reason why an expression has no value. `text`: the library's error."""
    text = _plain(text)
    if missing := re.match(r"Key not found in map : (.*)", text):
        return f"there is no key {missing[1]}"
    if "<jump_condition>" in text:
        return "the condition before ? is not true or false"
    if text.startswith("Applying SELECT"):
        return "a field is read from a value that is not an object"
    if text.startswith("Iteration budget exceeded"):
        return "all, exists, map or filter has too many iterations"
    return _overload(text) or text


def _syntax(message: str) -> str:
    if "recursion" in message:
        return "the expression is nested too deeply, or has too many operators in a row; move the logic into a step"
    if "'<EOF>'" in message:
        missing = re.match(r"Syntax error: missing '(.*?)'", message)
        return "the expression ends too early" + (f"; {missing[1]} is missing" if missing else "")
    if unexpected := _UNEXPECTED.match(message):
        token = unexpected[1].strip()
        if token[:1] in ("'", '"'):
            return "the text that begins here has no closing quote; end it with the quote that it begins with"
        meant = _MEANT.get(token)
        return f"`{token[:50]}` is not allowed here" + (f"; write {meant}" if meant else "")
    if operand := re.match(r"expression of type '(.*)' cannot be the operand of a select", message):
        return f"a value of type {operand[1]} has no fields"
    return _overload(message) or _plain(message)


def _no_variable(name: str, variables: Sequence[str], elsewhere: Sequence[str]) -> str:
    if name in elsewhere:
        return f"`{name}` is not available in this field; use {_either(variables)}"
    near = difflib.get_close_matches(name, variables, 1)
    hint = f"did you mean `{near[0]}`?" if near else f"use {_either(variables)}"
    return f"there is no variable `{name[:50]}`; {hint}"


def _either(variables: Sequence[str]) -> str:
    names = [f"`{name}`" for name in variables]
    return " or ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _no_function(name: str) -> str:
    if name == PARSE_JSON:
        return f"`{name}` is available only in webhook rules"
    if name in FUNCTIONS:
        return f"`{name}` is called in the wrong way; see https://cel.dev for the correct form"
    near = difflib.get_close_matches(name, FUNCTIONS, 1)
    return f"there is no function `{name[:50]}`" + (f"; did you mean `{near[0]}`?" if near else "")


def _overload(text: str) -> str | None:
    found = _OVERLOAD.search(text)
    if found is None:
        return None
    function = re.sub("[_@]", "", found["function"] or found["operator"])
    types = found["types"] or ", ".join(filter(None, (found["target"], found["arguments"]))) or "these arguments"
    types = re.sub(r"\b(u?int)64\b", r"\1", types.removeprefix("(").removesuffix(")").replace(".(", ", "))
    return f"`{function}` does not work with {types}{_numbers(function, types.split(', '))}"


def _numbers(function: str, types: list[str]) -> str:
    """How to correct an operation on mixed kinds of numbers. CEL compares them by value, but cannot add them."""
    if len(types) != 2 or not set(types) <= _NUMBERS.keys():
        return ""
    one, two = (_NUMBERS[name] for name in types)
    words = f" ({one} and {two}); " if one != two else f" ({one}); "
    if function == "%":
        return f"{words}it works only with whole numbers: write int(...)"
    if set(types) == {"int", "double"}:
        return f"{words}write 2.0 instead of 2, or convert one of them with double(...) or int(...)"
    return f"{words}convert one of them with int(...), uint(...) or double(...)" if one != two else ""


def _plain(text: str) -> str:
    return _CODES.sub("", text.strip().partition("\n")[0])[:200]

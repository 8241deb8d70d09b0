"""`parse_json(field)` in expressions: what stands in its place when the CEL library evaluates them.

The library has functions of one's own, but it keeps what they are given and what they answer for ever (0.1.3: a
reference to each), and a webhook may bring megabytes. So the text is read before the expression is evaluated: each call
becomes a variable, and its argument an expression of its own.
"""

from __future__ import annotations

import re
from typing import Any

from stepwell.core import exact_json
from stepwell.core.cel.json_fields import read_json

PARSE_JSON = "parse_json"
MOST = 8  # calls in one expression
VARIABLES = tuple(f"__json_{number}" for number in range(MOST))
NAMED = re.compile(r"__json_\d")
_TOKEN = re.compile(
    r"""
      //[^\n]*
    | (?:[rR][bB]?|[bB][rR])(?:\"{3}.*?\"{3}|'{3}.*?'{3}|"[^"\n]*"|'[^'\n]*')
    | [bB]?(?:\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
    | [A-Za-z_]\w*
    | \s+
    | .
    """,
    re.VERBOSE | re.DOTALL,
)


class TooMany(ValueError):
    """There are more calls than one expression may have."""


def without_calls(source: str) -> tuple[str, list[str]]:
    """The source with a variable in place of each call, as long as it was so that places in it stay right, and what
    each of them is given: the n-th may use the variables before its own. Raises TooMany."""
    arguments: list[str] = []
    if PARSE_JSON not in source:
        return source, arguments
    tokens = [(found[0], found.start(), found.end()) for found in _TOKEN.finditer(source)]
    text = list(source)
    opened: list[tuple[int, int] | None] = []  # for each parenthesis where its call begins, and its argument
    before: list[tuple[str, int]] = [("", 0), ("", 0)]  # the last two tokens that count
    for token, start, end in tokens:
        if token.isspace() or token.startswith("//"):
            continue
        if token == "(":
            is_call = before[-1][0] == PARSE_JSON and before[-2][0] != "."
            opened.append((before[-1][1], end) if is_call else None)
        elif token == ")" and opened and (call := opened.pop()) is not None:
            if len(arguments) == MOST:
                raise TooMany(f"{PARSE_JSON} may be called {MOST} times in one expression")
            begin, argument = call
            # What comes before it is blank, so that an error in it has its place in the whole source.
            arguments.append(_blank("".join(text[:argument])) + "".join(text[argument:start]))
            name = VARIABLES[len(arguments) - 1]
            text[begin:end] = name + _blank("".join(text[begin + len(name) : end]))
        before = [before[-1], (token, start)]
    return "".join(text), arguments


def json_value(text: Any, known: dict[str, Any]) -> Any:
    """The value of a JSON text; what is no text any more, but an object or a list, is one already. `known`: values of
    texts that were read before. Raises ValueError, in words for whoever wrote the rule."""
    if isinstance(text, dict | list):
        return text
    if not isinstance(text, str):
        raise ValueError(f"{PARSE_JSON} takes a text")
    if text in known:
        return known[text]
    try:
        value = known[text] = read_json(text)
    except exact_json.Unusable as error:
        raise ValueError(f"{PARSE_JSON}: the JSON cannot be kept: {error}") from None
    except ValueError as error:
        raise ValueError(f"{PARSE_JSON}: the text is not JSON: {error}") from None
    return value


def _blank(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)

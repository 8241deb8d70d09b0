"""Implements `parse_json(field)` in expressions: each call is replaced by a variable before the evaluation.

The library (0.1.3) supports custom functions, but leaks a reference to each argument and result, and a webhook may
send megabytes. So the argument of each call is compiled as a separate expression, and the text is parsed first.
"""

from __future__ import annotations

import re
from typing import Any

from stepwell.core import exact_json
from stepwell.core.cel.json_fields import read_json

PARSE_JSON = "parse_json"
MOST = 8  # the number of calls that one expression may have
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


class TooManyCalls(ValueError):
    """An expression calls `parse_json` too often."""


def replace_calls(source: str) -> tuple[str, list[str]]:
    """The source with a variable in place of each call of `parse_json`, and the argument of each call.

    The source keeps its length, so that the places of errors stay right. The n-th argument may use the variables of
    the calls before it. Raises TooManyCalls.
    """
    arguments: list[str] = []
    if PARSE_JSON not in source:
        return source, arguments
    tokens = [(found[0], found.start(), found.end()) for found in _TOKEN.finditer(source)]
    text = list(source)
    opened: list[tuple[int, int] | None] = []  # for each open parenthesis: where the call and the argument begin
    before: list[tuple[str, int]] = [("", 0), ("", 0)]  # the last two tokens that are not spaces or comments
    for token, start, end in tokens:
        if token.isspace() or token.startswith("//"):
            continue
        if token == "(":
            is_call = before[-1][0] == PARSE_JSON and before[-2][0] != "."
            opened.append((before[-1][1], end) if is_call else None)
        elif token == ")" and opened and (call := opened.pop()) is not None:
            if len(arguments) == MOST:
                raise TooManyCalls(f"`{PARSE_JSON}` is called more than {MOST} times; use fewer calls")
            begin, argument = call
            # Blanks replace the text before the argument, so that errors in it have their place in the whole source.
            arguments.append(_blank("".join(text[:argument])) + "".join(text[argument:start]))
            name = VARIABLES[len(arguments) - 1]
            text[begin:end] = name + _blank("".join(text[begin + len(name) : end]))
        before = [before[-1], (token, start)]
    return "".join(text), arguments


def json_value(text: Any, known: dict[str, Any]) -> Any:
    """The value of a JSON text. An object or a list is returned unchanged.

    `known`: the values of texts that were parsed before. Raises ValueError with a message for the author of the rule.
    """
    if isinstance(text, dict | list):
        return text
    if not isinstance(text, str):
        raise ValueError(f"{PARSE_JSON}: the value is not a text")
    if text in known:
        return known[text]
    try:
        value = known[text] = read_json(text)
    except exact_json.Unusable as error:
        raise ValueError(f"{PARSE_JSON}: the JSON cannot be stored: {error}") from None
    except ValueError as error:
        raise ValueError(f"{PARSE_JSON}: the text is not JSON: {error}") from None
    return value


def _blank(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)

"""Explains an error in a definition: the place, the problem and the fix.

Each message names the field, so that it can be understood without the text of the definition.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

Pointer = tuple[str | int, ...]  # the place of a value in a JSON document, as in RFC 6901


@dataclass(frozen=True, slots=True)
class Problem:
    pointer: Pointer
    message: str


def label(pointer: Pointer) -> str:
    """The name of the value at `pointer`, for messages: the field, and the index if the value is in a list."""
    suffix = ""
    for part in reversed(pointer):
        if isinstance(part, str):
            return part + suffix
        suffix = f"[{part}]" + suffix
    return "the definition" + suffix


def shown(value: object) -> str:
    """A short form of a value, safe to print."""
    if isinstance(value, _Written):
        return value.text
    if isinstance(value, str | int | float | bool) or value is None:
        text = json.dumps(value)
        return text if len(text) <= 60 else text[:57] + "..."
    if isinstance(value, dict):
        return "an object"
    return "a list" if isinstance(value, list | tuple) else f"a {type(value).__name__}"


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the most similar known name, or else a list of the known names."""
    names = list(known)
    close = get_close_matches(name[:100], names, n=1, cutoff=0.6)
    if close:
        return f"did you mean `{close[0]}`?"
    if not names:
        return "there are none here"
    if len(names) == 1:
        return f"the only name here is `{names[0]}`"
    return f"the known names are {listed(names[:12])}{' and others' if len(names) > 12 else ''}"


def listed(names: Iterable[str]) -> str:
    """The names as a list for a message: "`id`, `name`"."""
    return ", ".join(f"`{name}`" for name in names)


def problem_of(pointer: Pointer, error: Mapping[str, Any], written: str | None = None, fix: str = "") -> Problem:
    """The problem at `pointer`, from an entry of pydantic's `ValidationError.errors()`.

    `written`: the source text of the value, if it is known. `fix`: how to correct it, if that is known.
    """
    name, kind, value = label(pointer), error["type"], error["input"]
    context: dict[str, Any] = error.get("ctx", {})
    if kind == "value_error":
        return Problem(pointer, f"{name}: {context['error']}")
    phrase = _PHRASES.get(kind)
    if phrase is None:
        return Problem(pointer, f"{name}: {error['msg']}")
    words = phrase(context, _Written(written[:60]) if written else value)
    return Problem(pointer, f"{name} {words}{f': {fix}' if fix else ''}")


class _Written:
    """A value that messages show as users wrote it."""

    def __init__(self, text: str) -> None:
        self.text = text


def _choice(context: dict[str, Any], value: object) -> str:
    return f"must be {context['expected']}, not {shown(value)}"


def _expected(what: str) -> Callable[[dict[str, Any], object], str]:
    return lambda _, value: f"must be {what}, not {shown(value)}"


def _bound(words: str, key: str) -> Callable[[dict[str, Any], object], str]:
    return lambda context, value: f"must be {words} {context[key]:g}, not {shown(value)}"


def _at_most(context: dict[str, Any], value: object) -> str:
    return f"has more than {context['max_length']:,} entries, the maximum; remove some"


_PHRASES: dict[str, Callable[[dict[str, Any], object], str]] = {
    "string_type": _expected("text"),
    "string_unicode": lambda *_: "contains half a character (a lone surrogate); remove it",
    "string_too_long": lambda c, _: f"is longer than {c['max_length']:,} characters; shorten it",
    "string_too_short": lambda *_: "must not be empty",
    "too_short": lambda *_: "must have at least one entry",
    "too_long": _at_most,
    "bool_type": _expected("true or false"),
    "int_type": _expected("a whole number"),
    "int_from_float": _expected("a whole number"),
    "float_type": _expected("a number"),
    "finite_number": lambda *_: "must be a finite number",
    "greater_than": _bound("more than", "gt"),
    "greater_than_equal": _bound("at least", "ge"),
    "less_than_equal": _bound("at most", "le"),
    "literal_error": _choice,
    "list_type": _expected("a list, [...]"),
    "dict_type": _expected("an object, {...}"),
    "model_type": _expected("an object, {...}"),
    "model_attributes_type": _expected("an object, {...}"),
    "invalid_key": lambda *_: "is a field whose name is not text; put the name in quotes",
}

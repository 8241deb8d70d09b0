"""Parses JSON from outside, with limits that protect the process from hostile texts.

A byte order mark is ignored. A text that is nested deeper than `MAX_LEVELS`, or has more objects and arrays than
`MAX_CONTAINERS`, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import repeat
from typing import Any

import orjson

MAX_LEVELS = 128
MAX_CONTAINERS = 200_000  # objects and arrays in one text; each of them takes memory
BOM = b"\xef\xbb\xbf"
_DUMPS_LEVELS = 254  # the deepest nesting that orjson writes
_DIGITS = bytes(ord("0") if ord("0") <= byte <= ord("9") else ord(" ") for byte in range(256))
# Integers that may not fit into 64 bits: those of 20 digits, and negative ones of 19 digits that begin with a 9.
_LONG_INTEGER = re.compile(rb"(?:^|[\[:,\s])(?:-9\d{18}|-?\d{20,})(?=[\s,\]}]|$)")
_TOO_LARGE = object()
_BEGINNING = 64 * 1024  # bytes
_DEPTH_LIMIT = "depth limit"  # in orjson's message about more than 1,024 levels


class BadJson(ValueError):
    """The text is not JSON, or is over a limit. The message contains the reason."""


class TooMany(BadJson):
    """The text has too many objects and arrays."""

    def __init__(self) -> None:
        super().__init__(f"there are more than {MAX_CONTAINERS:,} objects and arrays; send fewer at once")


class TooDeep(BadJson):
    """The text is nested too deeply. `value`: the parsed value; None if it is nested too deeply even for the parser."""

    def __init__(self, levels: int, value: Any = None) -> None:
        super().__init__(f"the value is nested more than {levels} levels deep; flatten it")
        self.value = value


def without_bom(text: bytes) -> bytes:
    return text[3:] if text.startswith(BOM) else text


def parse_json(text: bytes, levels: int = MAX_LEVELS) -> Any:
    """The value of a JSON text. Raises BadJson."""
    text = without_bom(text)
    containers = text.count(b"{") + text.count(b"[")
    if containers > MAX_CONTAINERS:
        raise TooDeep(levels) if _begins_too_deep(text) else TooMany
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise TooDeep(levels) if _DEPTH_LIMIT in error.msg else BadJson(str(error)) from None
    if containers > levels and is_deeper(value, levels):
        raise TooDeep(levels, value)
    return value


def _begins_too_deep(text: bytes) -> bool:
    """Whether a text is nested deeper than orjson allows, judged by the beginning alone, to avoid parsing all of it."""
    try:
        orjson.loads(text[:_BEGINNING])
    except orjson.JSONDecodeError as error:
        return _DEPTH_LIMIT in error.msg
    return False


def is_deeper(value: Any, levels: int = MAX_LEVELS) -> bool:
    """Whether a value that orjson has parsed is nested deeper than `levels`."""
    return compact_text(value, levels) is None


def compact_text(value: Any, levels: int = MAX_LEVELS) -> bytes | None:
    """The JSON text of a value that orjson has parsed; None if it is nested deeper than `levels`."""
    around = _DUMPS_LEVELS - levels
    nested = value
    for _ in repeat(None, around):
        nested = [nested]
    try:
        return orjson.dumps(nested)[around:-around]  # orjson's own limit is the fastest way to measure the depth
    except TypeError:
        return None


def may_have_large_integers(text: bytes) -> bool:
    """Whether a JSON text may contain integers that do not fit into 64 bits. Digits inside strings count too.

    Searching for 19 digits with a regular expression takes ten times as long. So a sample is checked first: in a row of
    19 digits, at least one of every eighteenth byte is a digit, and at least three of every sixth byte.
    """
    if b"0" not in text[::18].translate(_DIGITS):
        return False
    may_be = b"000" in text[::6].translate(_DIGITS) and b"0" * 19 in text.translate(_DIGITS)
    return may_be and _LONG_INTEGER.search(text) is not None


def large_integers(text: bytes) -> list[str]:
    """JSON pointers to the integers of a text that do not fit into 64 bits. `parse_json` converts them to floats."""
    if not may_have_large_integers(text):
        return []
    import json  # the only parser that can distinguish large integers from floats; few texts need it

    return list(_pointers_to_too_large(json.loads(without_bom(text), parse_int=_integer)))


def _integer(digits: str) -> object:
    return 0 if len(digits) <= 20 and -(2**63) <= int(digits) < 2**64 else _TOO_LARGE


def _pointers_to_too_large(value: Any) -> Iterator[str]:
    todo = [(value, "")]
    while todo:
        part, pointer = todo.pop()
        if part is _TOO_LARGE:
            yield pointer
        elif isinstance(part, dict):
            todo += [(child, f"{pointer}/{escaped(key)}") for key, child in reversed(part.items())]
        elif isinstance(part, list):
            todo += [(child, f"{pointer}/{index}") for index, child in reversed(list(enumerate(part)))]


def escaped(key: str) -> str:
    """A key, escaped for a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")

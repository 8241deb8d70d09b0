"""JSON that comes from outside: read within limits, so that no text can hold up or break what reads it.

A byte order mark is passed over. What nests deeper than `MAX_LEVELS`, or holds more objects and arrays than
`MAX_CONTAINERS`, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import repeat
from typing import Any

import orjson

MAX_LEVELS = 128
MAX_CONTAINERS = 200_000  # objects and arrays of one text: each is an object in memory
BOM = b"\xef\xbb\xbf"
_DUMPS_LEVELS = 254  # the deepest nesting that orjson writes
_DIGITS = bytes(ord("0") if ord("0") <= byte <= ord("9") else ord(" ") for byte in range(256))
# Integers that may be beyond 64 bits: of 20 digits, or negative and of 19 that begin with a 9. Few texts have so many.
_LONG_INTEGER = re.compile(rb"(?:^|[\[:,\s])(?:-9\d{18}|-?\d{20,})(?=[\s,\]}]|$)")
_TOO_LARGE = object()
_BEGINNING = 64 * 1024  # bytes
_DEPTH_LIMIT = "depth limit"  # what orjson says of 1,024 levels


class BadJson(ValueError):
    """The text is no JSON, or more of it than is read here; the message says which."""


class TooMany(BadJson):
    """It holds too many objects and arrays."""

    def __init__(self) -> None:
        super().__init__(f"there are more than {MAX_CONTAINERS:,} objects and arrays in it; send less at once")


class TooDeep(BadJson):
    """It nests too deeply. `value`: what was read of it; None if it nests so deeply that nothing was."""

    def __init__(self, levels: int, value: Any = None) -> None:
        super().__init__(f"it is nested more than {levels} levels deep")
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
    """Whether the beginning of a text nests deeper than orjson reads: that is found without reading all of it."""
    try:
        orjson.loads(text[:_BEGINNING])
    except orjson.JSONDecodeError as error:
        return _DEPTH_LIMIT in error.msg
    return False


def is_deeper(value: Any, levels: int = MAX_LEVELS) -> bool:
    """Whether a value that orjson has read nests deeper than so many levels."""
    return compact_text(value, levels) is None


def compact_text(value: Any, levels: int = MAX_LEVELS) -> bytes | None:
    """The JSON text of a value that orjson has read; None if it nests deeper than so many levels."""
    around = _DUMPS_LEVELS - levels
    nested = value
    for _ in repeat(None, around):
        nested = [nested]
    try:
        return orjson.dumps(nested)[around:-around]  # it has a limit of its own, and is the fastest way through a value
    except TypeError:
        return None


def may_have_large_integers(text: bytes) -> bool:
    """Whether integers in a JSON text, or what looks so in its strings, may be beyond 64 bits. A regular expression
    takes ten times as long to look for 19 digits; of so many, every eighteenth byte is one, and every sixth byte
    is one, three times."""
    if b"0" not in text[::18].translate(_DIGITS):
        return False
    may_be = b"000" in text[::6].translate(_DIGITS) and b"0" * 19 in text.translate(_DIGITS)
    return may_be and _LONG_INTEGER.search(text) is not None


def large_integers(text: bytes) -> list[str]:
    """JSON pointers to the integers of a text that `parse_json` has read which do not fit into 64 bits: it made them
    floats."""
    if not may_have_large_integers(text):
        return []
    import json  # only this parser tells integers from floats; few texts come here

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
    """A part of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")

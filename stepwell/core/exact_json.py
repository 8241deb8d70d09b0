"""Parses JSON without changing values: integers of 64 bits, finite doubles, valid Unicode, 128 levels.

A value that cannot be stored exactly is an error, with the place (a JSON pointer) and a fix. Only the digits of a
double may be rounded silently.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson

from stepwell.core.json_input import MAX_LEVELS, compact_text, is_deeper, may_have_large_integers, without_bom

_MAY_BE_JSON = re.compile(rb'\s*[{\["\-0-9]')
_LONG_NUMBER = re.compile(rb"\d{19}")
_NUMBER = re.compile(rb"[ \t\r\n]*(-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?)[ \t\r\n]*")
_LONGEST_NUMBER = 800  # characters; written out in full, a double has at most 767 digits
_LONGEST_EXPONENT = 8
_LARGE = 8192  # bytes; for a longer text, counting the brackets takes longer than writing the value


class Unusable(Exception):
    """The JSON cannot be stored exactly. The message contains the value, the place and a fix."""


def parse(text: bytes) -> Any:
    """The value of a JSON text. Raises ValueError if it is not JSON, Unusable if it cannot be stored exactly.

    If an object has two members with the same name, the last one counts, as in JavaScript and Python.
    """
    value = _read(text)
    if text.count(b"[") + text.count(b"{") > MAX_LEVELS and is_deeper(value):
        raise too_deep()
    return value


def parse_compact(text: bytes) -> tuple[Any, bytes]:
    """The value of a JSON text, and the text without spaces. Raises the same errors as `parse`."""
    if len(text) < _LARGE:
        return (value := parse(text)), orjson.dumps(value)
    value = _read(text)
    if (compact := compact_text(value)) is None:
        raise too_deep()
    return value, compact


def _read(text: bytes) -> Any:
    """Does the same as `parse`, without the limit of levels."""
    text = without_bom(text)
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if _MAY_BE_JSON.match(text):
            _refuse_inexact(text, error.msg.partition(": line")[0])
        raise
    if may_have_large_integers(text) and not _has_only_64_bits(text):  # orjson converts longer ones to doubles
        _refuse_inexact(text, "an integer does not fit into 64 bits")
    return value


def is_inexact_number(text: bytes) -> bool:
    """Whether a text is a JSON number that cannot be represented exactly: an integer in 64 bits, others as a double.

    A double is exact if the shortest form of the double has the same value as the text. So 0.1 and 1.50 are exact;
    1.0000000000000000000001, 1e400 and 1e-400 are not.
    """
    found = _NUMBER.fullmatch(without_bom(text))
    if found is None:
        return False
    number, fraction, exponent = found[1].decode(), found[2], found[3] or b""
    if fraction is None and not exponent:
        return not _fits_64_bits(number)
    if len(number) > _LONGEST_NUMBER or len(exponent) > _LONGEST_EXPONENT:
        return True
    double = float(number)
    return not math.isfinite(double) or Decimal(repr(double)) != Decimal(number)


def _has_only_64_bits(text: bytes) -> bool:
    """Whether every integer of a JSON text fits into 64 bits."""
    all_fit = True

    def check(digits: str) -> int:
        nonlocal all_fit
        all_fit = all_fit and _fits_64_bits(digits)
        return 0

    json.loads(text, parse_int=check)
    return all_fit


def _fits_64_bits(digits: str) -> bool:
    return len(digits) <= 20 and -(2**63) <= int(digits) < 2**64


def too_deep() -> Unusable:
    """The exception for a value that is nested too deeply."""
    return Unusable(f"the value is nested more than {MAX_LEVELS} levels deep; flatten it, or pass it as a text")


# --- the place of an error -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Fault:
    """Replaces a part of a value that cannot be stored. `what` names the part, `why` has the reason and a fix."""

    what: str
    why: str


def _refuse_inexact(text: bytes, reason: str) -> None:
    """Raises Unusable if the text is JSON for Python's parser, with the place of the error, or else with `reason`."""
    integer = _integer if _LONG_NUMBER.search(text) else int  # calling `_integer` for each number is slow
    try:
        value = json.loads(text.decode(), parse_int=integer, parse_float=_double, parse_constant=_no_constant)
    except RecursionError:
        raise too_deep() from None
    except ValueError:
        return
    if (found := _first_fault(value)) is None:
        raise Unusable(reason)
    fault, pointer = found
    raise Unusable(f"{fault.what}{f' at {pointer}' if pointer else ''} {fault.why}")


def _integer(digits: str) -> int | _Fault:
    cure = "does not fit into 64 bits; write it as a text in quotes"
    return 0 if _fits_64_bits(digits) else _Fault(f"the integer {_short(digits)}", cure)


def _double(digits: str) -> float | _Fault:
    cure = "is too large for a double; write it as a text in quotes"
    return 0.0 if math.isfinite(float(digits)) else _Fault(f"the number {_short(digits)}", cure)


def _short(digits: str) -> str:
    return digits if len(digits) <= 40 else f"{digits[:40]}..."


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_HALF = _Fault("the text", "has half a character (a lone surrogate); write it as valid UTF-8")
_FINE = frozenset({int, float, bool, type(None)})
_Link = tuple[Any, Any] | None  # the link of the container, and the key in it


def _first_fault(value: Any) -> tuple[_Fault, str] | None:
    """A fault in a value, with the place.

    Not recursive, because the value may be nested deeply. Only containers are put on the stack, because there may be
    half a million numbers.
    """
    left: list[tuple[Any, _Link, int]] = [([value], None, 0)]
    while left:
        container, link, depth = left.pop()
        if depth > MAX_LEVELS:
            raise too_deep()
        is_object = isinstance(container, dict)
        members: Iterable[tuple[Any, Any]] = container.items() if is_object else enumerate(container)
        for key, member in members:
            if type(member) in _FINE and not is_object:
                continue
            here = (link, key) if depth else None
            if is_object and not _is_whole(key):
                return _HALF, _pointer(here)
            if isinstance(member, _Fault):
                return member, _pointer(here)
            if isinstance(member, str):
                if not _is_whole(member):
                    return _HALF, _pointer(here)
            elif type(member) not in _FINE and (member or depth >= MAX_LEVELS):
                left.append((member, here, depth + 1))
    return None


def _is_whole(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _pointer(link: _Link) -> str:
    """The JSON pointer (RFC 6901) of a link."""
    words: list[str] = []
    while link is not None:
        link, key = link
        words.append(str(key).replace("~", "~0").replace("/", "~1"))
    return "".join(f"/{word}" for word in reversed(words))

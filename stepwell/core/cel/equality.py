"""Forms of JSON values that are equal exactly if CEL treats the values as equal."""

from __future__ import annotations

from typing import Any

_EXACT = 2**53  # above this, some integers cannot be represented as a double


def is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def canonical(value: Any) -> Any:
    """A form of a scalar that is equal for values that CEL treats as equal, such as 1 and 1.0, or 0.0 and -0.0.

    The library compares an integer with a double as doubles: 2**53 + 1 is equal to 2.0**53, but not to 2**53. So an
    integer that cannot be represented as a double has the same form as the nearest double.
    """
    if isinstance(value, float):
        return f"#{int(value)}" if value.is_integer() else [value]
    if isinstance(value, int) and not isinstance(value, bool):
        return f"#{value if -_EXACT <= value <= _EXACT else int(float(value))}"
    return [value]


def canonical_json(value: Any, depth: int) -> Any:
    """A form of any JSON value that is equal for values that CEL treats as equal, for `orjson.dumps`.

    Lists are equal if their items are, and objects if their fields are, in any order. Raises ValueError if lists and
    objects are nested more than `depth` deep.
    """
    if is_scalar(value):
        return canonical(value)
    if depth == 0:
        raise ValueError("lists and objects are nested too deeply")
    if isinstance(value, list):
        return {"list": [canonical_json(item, depth - 1) for item in value]}
    return {"object": [[name, canonical_json(value[name], depth - 1)] for name in sorted(value)]}

"""Encodes a Python handler's return value as JSON, exactly as Lambda's own runtime does.

That runtime (awslambdaric, `lambda_runtime_marshaller.py`) uses simplejson: `Decimal` is a number with all its digits,
bytes are UTF-8 text, values with `_asdict` (named tuples) are objects; keys may be bytes, numbers, booleans and None.
Standard library only, Python 3.8 and later, since steps bring their own interpreter. A test compares every kind of
value with awslambdaric itself.
"""

from __future__ import annotations

import json
import marshal as builtin_types
import sys
from json.encoder import encode_basestring
from typing import Any, Callable, Dict, Set  # noqa: UP035 (Python 3.8)

Write = Callable[[str], object]


class MarshalError(Exception):
    """The value cannot be encoded as JSON. The message is the one of Lambda's runtime."""


def marshal(value: object) -> bytes:
    """The JSON text of a value. Raises MarshalError."""
    if isinstance(value, bytes):
        return _as_json(value)
    text = _of_builtin_types(value)
    if text is not None:
        return text
    pieces = []  # type: list[str]
    try:
        _write(value, pieces.append, set())
        return "".join(pieces).encode()
    except Exception as error:
        raise MarshalError("Unable to marshal response: {}".format(error)) from None  # noqa: UP032


def _refuse(value: Any) -> None:
    raise TypeError


_encode = json.JSONEncoder(ensure_ascii=False, default=_refuse).iterencode  # taken before a handler can change it


def _of_builtin_types(value: Any) -> bytes | None:
    """The JSON text by a faster way in C; None if that could give another result, or fails.

    The standard library's encoder treats subclasses of tuple and list like their base, and so ignores `_asdict`. The
    module `marshal` rejects all but built-in types, much faster than a check in Python.
    """
    try:
        builtin_types.dumps(value, 2)  # 2: without a table of all objects
        return "".join(_encode(value, _one_shot=True)).encode()
    except Exception:
        return None


def _as_json(content: bytes) -> bytes:
    """Bytes that a handler returns: unchanged if they are JSON, otherwise as a JSON string."""
    text = content.decode(errors="replace")
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return json.dumps(text, ensure_ascii=False).encode()
    return content


def _write(value: Any, write: Write, within: Set[int]) -> None:  # noqa: UP006
    """Writes any value. `within` are the ids of the containers around it."""
    if value is None:
        write("null")
    elif value is True:
        write("true")
    elif value is False:
        write("false")
    elif isinstance(value, str):
        write(encode_basestring(value))
    elif isinstance(value, bytes):
        write(encode_basestring(value.decode()))
    elif isinstance(value, int):
        write(int.__repr__(value))
    elif isinstance(value, float):
        write(_float(value))
    else:
        if id(value) in within:
            raise ValueError("Circular reference detected")
        within.add(id(value))
        _write_container(value, write, within)
        within.remove(id(value))


def _write_container(value: Any, write: Write, within: Set[int]) -> None:  # noqa: UP006
    fields = _fields(value)
    if fields is not None:
        _write_object(fields, write, within)
    elif isinstance(value, (list, tuple)):
        separator = "["
        for item in value:
            write(separator)
            _write(item, write, within)
            separator = ", "
        write("[]" if separator == "[" else "]")
    else:
        write(_other(value))


def _fields(value: Any) -> Dict[Any, Any] | None:  # noqa: UP006
    """The members of a dict or of a value with `_asdict`, such as a named tuple; None for other values."""
    method = getattr(value, "_asdict", None)
    if callable(method):
        try:
            fields = method()
        except TypeError:  # the value is a class, so the method has no object
            pass
        else:
            if not isinstance(fields, dict):
                raise TypeError("_asdict() must return a dict, not %s" % type(fields).__name__)  # noqa: UP031
            return fields
    return value if isinstance(value, dict) else None


def _write_object(fields: Dict[Any, Any], write: Write, within: Set[int]) -> None:  # noqa: UP006
    separator = "{"
    for key, value in fields.items():
        write(separator)
        write(encode_basestring(_key(key)))
        write(": ")
        _write(value, write, within)
        separator = ", "
    write("{}" if separator == "{" else "}")


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, bytes):
        return key.decode()
    if isinstance(key, float):
        return _float(key)
    if key is None or key is True or key is False:
        return {None: "null", True: "true", False: "false"}[key]
    if isinstance(key, int):
        return int.__repr__(key)
    raise TypeError("keys must be str, int, float, bool or None, not %s" % type(key).__name__)  # noqa: UP031


def _float(number: float) -> str:
    text = float.__repr__(number)
    return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(text, text)


def _other(value: Any) -> str:
    decimal = sys.modules.get("decimal")  # loaded if there is any Decimal
    if decimal is not None and isinstance(value, decimal.Decimal):
        return "NaN" if value.is_nan() else str(value)
    raise TypeError("Object of type %s is not JSON serializable" % value.__class__.__name__)  # noqa: UP031

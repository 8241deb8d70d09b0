"""Declares settings, reads them from CDK's context, checks them and documents them.

An invalid value or an unknown name stops the synthesis. The message describes the valid values.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import Field, field, fields
from typing import Any


class BadSetting(ValueError):
    """A setting is invalid. The message describes the valid values."""


def setting(default: Any, text: str, **limits: Any) -> Any:
    """Declares a setting. `limits`: `low` and `high` of a number, `one_of` a list, or a `pattern` with a `hint`."""
    return field(default=default, metadata={"text": text, **limits})


def field_problems(field: Field[Any], value: Any) -> Iterator[str]:
    low, high, one_of = (field.metadata.get(name) for name in ("low", "high", "one_of"))
    pattern = field.metadata.get("pattern")
    if (low is not None and value < low) or (high is not None and value > high):
        yield f"{field.name}: {value} is not{_limits(field).replace(';', '')}"
    if one_of is not None and value not in one_of:
        yield f"{field.name}: {value} is not one of {', '.join(map(str, one_of))}"
    if pattern is not None and value != field.default and not re.fullmatch(pattern, value):
        yield f"{field.name}: {value!r} is not {field.metadata['hint']}"


def parsed(field: Field[Any], value: Any) -> Any:
    """The value in the field's type. `-c` gives texts; cdk.json may contain numbers and booleans. Raises BadSetting."""
    kind: type = type(field.default)
    if kind is bool:
        if str(value).lower() not in ("true", "false"):
            raise BadSetting(f"{field.name}: {value!r} is neither true nor false")
        return str(value).lower() == "true"
    try:
        return kind(value)
    except ValueError:
        raise BadSetting(f"{field.name}: {value!r} is not a number") from None


def refuse_unknown(cls: type[Any], names: Mapping[str, Any]) -> None:
    known = [field.name for field in fields(cls)]
    for name in names:
        if name in known or re.search(r"[:/]|^aws-cdk|^cdk|^vpc-provider", name):  # CDK's own settings
            continue
        close = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {close[0]}?" if close else "; infra/README.md lists the settings"
        raise BadSetting(f"there is no setting {name}{hint}")


def _shown(field: Field[Any]) -> str:
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    return f"`{field.default}`" if field.default != "" else ""


def _limits(field: Field[Any]) -> str:
    low, high, one_of = (field.metadata.get(name) for name in ("low", "high", "one_of"))
    if one_of is not None and isinstance(field.default, str):
        return f"; {' or '.join(f'`{value}`' for value in one_of)}"
    if one_of is not None:
        return f"; one of {', '.join(map(str, one_of))}"
    if low is not None and high is not None:
        return f"; from {low} to {high}"
    return f"; {low} or more" if low is not None else ""


def table_of(cls: type[Any]) -> str:
    """The settings of a class as a table in Markdown."""
    rows = [f"| `{field.name}` | {_shown(field)} | {field.metadata['text']}{_limits(field)} |" for field in fields(cls)]
    return "\n".join(["| setting | default | what it does |", "|---|---|---|", *rows])

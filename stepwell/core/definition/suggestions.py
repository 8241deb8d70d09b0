"""Suggests a fix for a value of the wrong type.

Each suggestion is tested first: it is offered only if the definition accepts it in place of the wrong value.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stepwell.core.definition.problems import Pointer, Problem, problem_of

Error = Mapping[str, Any]  # an entry of pydantic's `ValidationError.errors()`

_FIRST_FIELDS = {"after": "step", "triggers": "event", "runtime": "type", "retries": "attempts"}  # as in `after: [a]`
_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")


def problems_with_fixes(
    data: Any,
    errors: Sequence[tuple[Pointer, Error]],
    written: Mapping[Pointer, str],
    wrong: Callable[[Any], set[Pointer]],
) -> list[Problem]:
    """The errors as problems, with a fix where there is one.

    `written`: the source text of values that are not strings. `wrong`: returns the places of all errors in some data;
    it is called with the data after the suggestions were applied.
    """
    fixes = {pointer: found for pointer, error in errors if (found := _fix(pointer, error, written)) is not None}
    still = wrong(_replaced(data, (), {at: value for at, (_, value) in fixes.items()})) if fixes else set()
    accepted = {at: text for at, (text, _) in fixes.items() if not any(place[: len(at)] == at for place in still)}
    return [problem_of(at, error, written.get(at), accepted.get(at, "")) for at, error in errors]


def _fix(pointer: Pointer, error: Error, written: Mapping[Pointer, str]) -> tuple[str, Any] | None:
    """A suggestion as text, and the value after following it."""
    value, field = error["input"], next((part for part in reversed(pointer) if isinstance(part, str)), "")
    match error["type"]:
        case "string_type" if value is None or isinstance(value, int | float):
            text = written.get(pointer, json.dumps(value))
            return f"put it in quotes, {json.dumps(text, ensure_ascii=False)}", text
        case "int_type" | "float_type" if isinstance(value, str):
            return _number(value)
        case "bool_type" if str(value).lower() in (*_TRUE, *_FALSE):
            meant = str(value).lower() in _TRUE
            return f"write {json.dumps(meant)}", meant
        case "list_type" if isinstance(value, str | dict) and value:
            words = _words(value) if field in ("command", "entrypoint") and isinstance(value, str) else [value]
            return f"write a list, {json.dumps(words, ensure_ascii=False)}", words
        case "model_type" | "model_attributes_type" | "dict_type" if field in _FIRST_FIELDS:
            whole = {_FIRST_FIELDS[field]: value}
            return f"write {json.dumps(whole, ensure_ascii=False)}", whole
    return None


def _number(text: str) -> tuple[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return f"write {text}, without quotes", value


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return [text]


def _replaced(data: Any, pointer: Pointer, values: Mapping[Pointer, Any]) -> Any:
    """A copy of the data in which the values at some places are replaced."""
    if pointer in values:
        return values[pointer]
    if isinstance(data, dict):
        return {key: _replaced(value, (*pointer, key), values) for key, value in data.items()}
    if isinstance(data, list):
        return [_replaced(value, (*pointer, i), values) for i, value in enumerate(data)]
    return data

"""Finds and parses the fields of a form that contain JSON.

A field is parsed as JSON if a webhook rule reads something inside it, as in `body.payload.user`. So the rule decides
whether a field is an object or a text; the sender cannot.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from stepwell.core import exact_json
from stepwell.core.cel.ast import Call, Comprehension, Node, Select, path, walk
from stepwell.core.json_input import MAX_CONTAINERS


def fields_with_json(tree: Node) -> Iterator[str]:
    """The names of the fields of `body` in which an expression reads fields or entries."""
    for node in walk(tree):
        if isinstance(node, Select):
            holder = node.operand
        elif isinstance(node, Call) and node.function == "_[_]":
            holder = node.args[0]
        elif isinstance(node, Comprehension):
            holder = node.range
        else:
            continue
        found = path(holder)
        if found is not None and len(found) == 2 and found[0] == "body":
            yield found[1]


def with_json_fields(form: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """A copy of the form in which the named fields are parsed, if the text is a JSON object or list.

    Raises ValueError for JSON that cannot be stored exactly.
    """
    read = dict(form)
    for name in names:
        text = form.get(name)
        if isinstance(text, str) and (value := json_of_text(text)) is not None:
            read[name] = value
    return read


def read_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError if it is not JSON, exact_json.Unusable if it cannot be stored."""
    if text.count("{") + text.count("[") > MAX_CONTAINERS:
        raise exact_json.Unusable(f"it has more than {MAX_CONTAINERS:,} objects and arrays")
    return exact_json.parse(text.encode())


def json_of_text(text: str) -> dict[str, Any] | list[Any] | None:
    """The JSON object or list that is written in a text; None for any other text.

    Raises ValueError for JSON that cannot be stored exactly.
    """
    if text.lstrip(" \t\r\n\ufeff")[:1] not in ("{", "["):
        return None
    try:
        value: dict[str, Any] | list[Any] = read_json(text)
    except exact_json.Unusable as error:
        raise ValueError(f"the JSON cannot be stored: {error}") from None
    except ValueError:
        return None
    return value

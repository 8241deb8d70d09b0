"""Which fields of a form are JSON: those whose own fields or entries an expression asks for, as in body.payload.user.

One rule: the rule decides, and never the sender, whether a field is an object or a text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from stepwell.core import exact_json
from stepwell.core.cel.ast import Call, Comprehension, Node, Select, path, walk
from stepwell.core.json_input import MAX_CONTAINERS


def asked_fields(tree: Node) -> Iterator[str]:
    """The fields of `body` that an expression asks for fields or entries of."""
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
    """The form, with the objects and lists in those of these fields whose text is one. Raises ValueError."""
    read = dict(form)
    for name in names:
        text = form.get(name)
        if isinstance(text, str) and (value := json_of_text(text)) is not None:
            read[name] = value
    return read


def read_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError if it is not JSON, exact_json.Unusable if it cannot be kept."""
    if text.count("{") + text.count("[") > MAX_CONTAINERS:
        raise exact_json.Unusable(f"it has more than {MAX_CONTAINERS:,} objects and arrays")
    return exact_json.parse(text.encode())


def json_of_text(text: str) -> dict[str, Any] | list[Any] | None:
    """The JSON object or list that a text is; None if it is any other text. Raises ValueError if it is one that cannot
    be kept as it is."""
    if text.lstrip(" \t\r\n\ufeff")[:1] not in ("{", "["):
        return None
    try:
        value: dict[str, Any] | list[Any] = read_json(text)
    except exact_json.Unusable as error:
        raise ValueError(f"the JSON cannot be kept: {error}") from None
    except ValueError:
        return None
    return value

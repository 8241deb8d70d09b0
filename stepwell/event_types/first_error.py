"""A schema's first error, found in about the time that it takes to see that there is one.

A validator collects all that is wrong by each of some alternatives (`anyOf`, `oneOf`) before it says that none holds:
that can be many thousand errors. `not` collects nothing, so for the first error alternatives stand in two of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepwell.event_types.schema import MAPS_OF_SCHEMAS, ONE_SCHEMA, Schema

if TYPE_CHECKING:
    import jsonschema_rs

_ALTERNATIVES = {
    "anyOf": "the value is not valid under any of the schemas listed in the 'anyOf' keyword",
    "oneOf": "the value is not valid under exactly one of the schemas listed in the 'oneOf' keyword",
}


class Entangled(Exception):
    """What the schema says beside its alternatives depends on which of them hold."""


def first_error_schema(schema: Schema) -> Schema:
    """A schema that refuses the same values, at the same places. Raises Entangled."""
    if isinstance(schema, bool):
        return schema
    if any(keyword.startswith("unevaluated") for keyword in schema):
        raise Entangled
    changed = {word: _changed(word, item) for word, item in schema.items() if word not in _ALTERNATIVES}
    alternatives = [{"not": {"not": {word: schema[word]}}} for word in _ALTERNATIVES if word in schema]
    return {**changed, "allOf": [*changed.get("allOf", ()), *alternatives]} if alternatives else changed


def _changed(keyword: str, value: Any) -> Any:
    if keyword in ONE_SCHEMA:
        return first_error_schema(value)
    if keyword in MAPS_OF_SCHEMAS:
        return {name: first_error_schema(child) for name, child in value.items()}
    if keyword in ("allOf", "prefixItems"):
        return [first_error_schema(child) for child in value]
    return value


def message_of(error: jsonschema_rs.ValidationError) -> str:
    """An error's message, as it would be by the schema that `first_error_schema` was made of."""
    for word, message in _ALTERNATIVES.items():
        if error.message.startswith(f'{{"not":{{"{word}":'):
            return message
    return error.message

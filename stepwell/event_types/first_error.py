"""Finds the first error of an invalid value quickly, in about the time that `is_valid` takes.

A validator collects the errors of all alternatives (`anyOf`, `oneOf`) before it reports that none is valid, perhaps
thousands. `not` collects no errors, so alternatives are wrapped in a double `not`.
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
    """The schema has keywords that depend on which alternatives are valid, so it cannot be changed."""


def first_error_schema(schema: Schema) -> Schema:
    """A schema that rejects the same values at the same places, without collecting errors. Raises Entangled."""
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
    """The message that the original schema of `first_error_schema` gives for an error."""
    for word, message in _ALTERNATIVES.items():
        if error.message.startswith(f'{{"not":{{"{word}":'):
            return message
    return error.message

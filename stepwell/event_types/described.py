"""What of an event a schema describes: its `data`, or the whole of it."""

from __future__ import annotations

from typing import Literal

from stepwell.event_types.schema import EMBEDDED, Document, Place, Schema, conjunction, embedded

_ENVELOPE = frozenset({"name", "data", "user", "id", "ts", "v"})


def describes(schema: Schema) -> Literal["data", "event"]:
    """What of an event a schema is about: its `data`, or the whole of it.

    The whole event, if the schema's properties are those of an event: `name`, `data` (an object), and nothing but
    name, data, user, id, ts, v. So both the files `<name>.<v>.schema.json` and Inngest's triggers are understood.
    """
    document = Document(schema)
    properties: dict[str, Place] = {}
    for place in conjunction(document.root):
        properties |= {name: place.child("properties", name) for name in place.get("properties") or {}}
    if not {"name", "data"} <= properties.keys() <= _ENVELOPE:
        return "data"
    types = [place.get("type") for place in conjunction(properties["data"])]
    return "data" if any(t is not None and t != "object" and "object" not in t for t in types) else "event"


def event_schema(schema: Schema) -> Schema:
    """The schema of the whole event, whatever `schema` describes."""
    if describes(schema) == "event":
        return schema
    if not isinstance(schema, dict):
        return {"properties": {"data": schema}}
    return {"properties": {"data": {"$ref": EMBEDDED}}, "$defs": {"data": embedded(schema)}}

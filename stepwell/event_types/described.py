"""Decides whether a schema describes the `data` of an event, or the whole event."""

from __future__ import annotations

from typing import Literal

from stepwell.event_types.schema import EMBEDDED, Document, Place, Schema, conjunction, embedded

_ENVELOPE = frozenset({"name", "data", "user", "id", "ts", "v"})


def describes(schema: Schema) -> Literal["data", "event"]:
    """Whether a schema describes the `data` of an event, or the whole event.

    It describes the whole event if it has the properties `name` and `data` (an object), and no others than name, data,
    user, id, ts, v. So both the files `<name>.<v>.schema.json` and the triggers of Inngest are understood.
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
    """The schema of the whole event, also if `schema` describes only the data."""
    if describes(schema) == "event":
        return schema
    if not isinstance(schema, dict):
        return {"properties": {"data": schema}}
    return {"properties": {"data": {"$ref": EMBEDDED}}, "$defs": {"data": embedded(schema)}}

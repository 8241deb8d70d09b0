"""Infers a first schema from events that were sent. The schema describes only these events, so it needs a review."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from stepwell.event_types.schema import DIALECT


def infer(events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """A schema of the events' `data`, under which every given event is valid."""
    from genson import SchemaBuilder

    builder = SchemaBuilder(schema_uri=DIALECT)
    builder.add_schema({"type": "object", "properties": {}})
    for event in events:
        builder.add_object(event.get("data") or {})
    schema: dict[str, Any] = builder.to_schema()
    return schema

"""A first schema of events, made from events that were sent.

One rule: it describes what was seen, and no more; whoever uses it reads it first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from stepwell.event_types.schema import DIALECT


def infer(events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The schema of the events' `data`: every event given is valid under it."""
    from genson import SchemaBuilder

    builder = SchemaBuilder(schema_uri=DIALECT)
    builder.add_schema({"type": "object", "properties": {}})
    for event in events:
        builder.add_object(event.get("data") or {})
    schema: dict[str, Any] = builder.to_schema()
    return schema

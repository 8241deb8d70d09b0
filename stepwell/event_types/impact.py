"""What a new version of a type means for what is there: for events, and for functions that read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from stepwell.core.problems import Problem
from stepwell.event_types.compatibility import compare
from stepwell.event_types.schema import Schema


def breaking(old: Schema, new: Schema) -> list[Problem]:
    """How `new` differs, so that events which were right are no longer, or new ones are wrong for who reads the old."""
    return [Problem(its.pointer, its.message) for its in compare(old, new).breaking]


def affected(functions: Iterable[Mapping[str, Any]], name: str) -> Iterator[tuple[str, Problem]]:
    """What a breaking change of events of this name touches in functions: their ids, with each trigger that such events
    start. `functions`: normalised definitions."""
    for definition in functions:
        for i, trigger in enumerate(definition["triggers"]):
            if _starts_on(trigger.get("event"), name):
                yield definition["id"], Problem(("triggers", i), f"starts on {name}")


def _starts_on(event: str | None, name: str) -> bool:
    return event is not None and (name.startswith(event[:-1]) if event.endswith("*") else event == name)

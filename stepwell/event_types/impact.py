"""What a new version of a type means for what is there: for events, and for functions that read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from stepwell.core.problems import Problem
from stepwell.event_types.check import check
from stepwell.event_types.compatibility import compare
from stepwell.event_types.schema import Schema


def breaking(old: Schema, new: Schema) -> list[Problem]:
    """How `new` differs, so that events which were right are no longer, or new ones are wrong for who reads the old."""
    return [Problem(its.pointer, its.message) for its in compare(old, new).breaking]


def affected(
    functions: Iterable[Mapping[str, Any]], name: str, old: Schema, new: Schema
) -> Iterator[tuple[str, Problem]]:
    """What breaking changes of events of this name mean for functions: their ids, with each trigger that such events
    start, and each expression that the new schema is not right for while the old one was. `functions`: normalised
    definitions."""
    for definition in functions:
        for i, trigger in enumerate(definition["triggers"]):
            if _starts_on(trigger.get("event"), name):
                yield definition["id"], Problem(("triggers", i), f"starts on {name}")
        known = set(check(dict(definition), {name: old}))
        yield from ((definition["id"], its) for its in check(dict(definition), {name: new}) if its not in known)


def _starts_on(event: str | None, name: str) -> bool:
    return event is not None and (name.startswith(event[:-1]) if event.endswith("*") else event == name)

"""The impact of a new version of a type: breaking changes, and the functions that they affect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from stepwell.core.definition.problems import Pointer, Problem
from stepwell.event_types.check import check
from stepwell.event_types.compatibility import compare
from stepwell.event_types.schema import Schema


def breaking(old: Schema, new: Schema) -> list[Problem]:
    """The breaking changes from `old` to `new`, in either direction."""
    return [Problem(item.pointer, item.message) for item in compare(old, new).breaking]


def affected(
    functions: Iterable[Mapping[str, Any]], name: str, old: Schema, new: Schema
) -> Iterator[tuple[str, Problem]]:
    """Yields the places in functions that a breaking change of an event's type affects, with the function's id.

    Such places are triggers and waits for the event, and expressions that are valid only for the old schema.
    `functions` are normalised definitions.
    """
    for definition in functions:
        for i, trigger in enumerate(definition["triggers"]):
            if _starts_on(trigger.get("event"), name):
                yield definition["id"], Problem(("triggers", i), f"starts on {name}")
        for pointer, event in _awaited(definition):
            if event == name:
                yield definition["id"], Problem(pointer, f"waits for {name}")
        was_wrong = set(check(definition, {name: old}))
        for problem in check(definition, {name: new}):
            if problem not in was_wrong:
                yield definition["id"], problem


def event_names(definition: Mapping[str, Any]) -> set[str]:
    """The exact names of the events that a function starts on, waits for, or is cancelled by."""
    names = {trigger["event"] for trigger in definition["triggers"] if "event" in trigger}
    return {name for name in names if not name.endswith("*")} | {name for _, name in _awaited(definition)}


def _awaited(definition: Mapping[str, Any]) -> Iterator[tuple[Pointer, str]]:
    yield from ((("cancel", i), rule["event"]) for i, rule in enumerate(definition.get("cancel") or ()))
    for step_id, step in definition["steps"].items():
        for i, edge in enumerate(step["after"]):
            if edge.get("async"):
                yield ("steps", step_id, "after", i, "async"), edge["async"]["event"]


def _starts_on(event: str | None, name: str) -> bool:
    return event is not None and (name.startswith(event[:-1]) if event.endswith("*") else event == name)

"""The head of a version: the triggers and the waits, readable without compiling the plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from stepwell.core.compile import trigger_of
from stepwell.core.plan import Trigger
from stepwell.core.routing.triggers import Paths
from stepwell.core.routing.waits import wait_index
from stepwell.core.trigger_index import TriggerIndex, trigger_index

_FIELDS = ("event", "expression", "cron", "timezone")


@dataclass(frozen=True, slots=True)
class Head:
    """A version whose plan is not compiled yet."""

    function_id: str
    version: int
    triggers: tuple[Trigger, ...]


def wait_paths(waits: Iterable[tuple[str, str | None]]) -> dict[str, set[Paths | None]]:
    """The sets of paths by which waits are indexed, for each event name. None: by the name alone.

    `waits`: pairs of an event name and a `match`. Raises ExpressionError.
    """
    found: dict[str, set[Paths | None]] = {}
    for event, match in waits:
        index = wait_index(match)
        found.setdefault(event, set()).add(index.paths if index else None)
    return found


def head_json(definition: Mapping[str, Any]) -> bytes:
    """The stored form of a version's head, which is read without compiling anything.

    `definition`: normalised. Raises ExpressionError.
    """
    triggers = [trigger_of(trigger) for trigger in definition["triggers"]]
    paths = wait_paths(_waits(definition))
    return orjson.dumps(
        {
            "triggers": [[getattr(trigger, name) for name in _FIELDS] for trigger in triggers],
            "indexes": indexes_json(triggers),
            "paths": {name: list(sets) for name, sets in paths.items()},
        }
    )


def head_from(function_id: str, version: int, text: bytes) -> tuple[Head, dict[str, set[Paths | None]]]:
    """The inverse of `head_json`: the head of a version, and the paths by which waits are indexed."""
    data = orjson.loads(text)
    triggers = with_indexes([Trigger(*row) for row in data["triggers"]], data["indexes"])
    paths = {name: {_path_set(raw) for raw in sets} for name, sets in data["paths"].items()}
    return Head(function_id, version, triggers), paths


def _waits(definition: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    for step in definition["steps"].values():
        for edge in step["after"]:
            if value := edge.get("async"):
                yield value["event"], value.get("match")
    for rule in definition.get("cancel", ()):
        yield rule["event"], rule.get("if")


def _path_set(raw: list[list[str]] | None) -> Paths | None:
    return None if raw is None else tuple(map(tuple, raw))


def indexes_json(triggers: Sequence[Trigger]) -> list[Any]:
    """The stored form of the triggers' indexes, which are read without compiling expressions."""
    found = [None if trigger.expression is None else trigger_index(trigger.expression) for trigger in triggers]
    return [None if index is None else index.as_json() for index in found]


def with_indexes(triggers: Sequence[Trigger], stored: Sequence[Any] | None) -> tuple[Trigger, ...]:
    """The triggers with indexes. `stored`: the JSON data of `indexes_json`, if there is any."""
    indexes = [row and TriggerIndex.from_json(row) for row in stored or [None] * len(triggers)]
    return tuple(replace(trigger, index=index) for trigger, index in zip(triggers, indexes, strict=True))

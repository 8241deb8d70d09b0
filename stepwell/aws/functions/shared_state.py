"""What all functions have in common: one item, with a counter of their changes.

Whoever has read functions reads them again when the counter has moved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from stepwell.aws.clients import client
from stepwell.aws.table.items import read_item
from stepwell.aws.table.keys import FUNCTIONS_STATE, NEW, Item
from stepwell.core.routing.triggers import Paths

WaitPaths = dict[str, set[Paths | None]]


@dataclass(slots=True)
class SharedState:
    """`generation` counts changes, `longest` is ms by the name of an event. `wait_shards`: among how many partitions
    the waits by one name alone are divided. `has_starts`: what starts the functions is written down for all of them."""

    generation: int
    paths: WaitPaths
    longest: dict[str, int]
    wait_shards: int = 1
    has_starts: bool = False


def read_state(table: str) -> SharedState:
    item = read_item(table, FUNCTIONS_STATE)
    if item is None:
        return SharedState(0, {}, {})
    paths = {name: set(map(_paths, entry)) for name, entry in orjson.loads(item["w"]["B"]).items()}
    longest = orjson.loads(item["l"]["B"]) if "l" in item else {}
    shards = int(item["ws"]["N"]) if "ws" in item else 1
    return SharedState(int(item["g"]["N"]), paths, longest, shards, item.get("st") == item["g"])


def change_state(
    table: str, edit: Callable[[SharedState], bool], write_starts: Callable[[], None] | None = None
) -> bool:
    """Edit the state and count up, against whoever does so at the same time; False if there is nothing to change.
    `write_starts`: writes down first what starts functions, for all of them; called if it is not written, as after a
    change by an earlier version of Stepwell."""
    db = client("dynamodb")
    while True:
        state = read_state(table)
        if not edit(state):
            return False
        if write_starts is not None and not state.has_starts:
            write_starts()
        try:
            db.put_item(
                TableName=table,
                Item=_item(state, has_starts=write_starts is not None or state.has_starts),
                ConditionExpression=f"{NEW} OR g = :g",
                ExpressionAttributeValues={":g": {"N": str(state.generation)}},
            )
        except db.exceptions.ConditionalCheckFailedException:
            continue
        return True


def _item(state: SharedState, *, has_starts: bool) -> Item:
    generation = {"N": str(state.generation + 1)}
    paths: dict[str, list[Any]] = {
        name: [item if item is None else list(map(list, item)) for item in items] for name, items in state.paths.items()
    }
    return {
        **FUNCTIONS_STATE,
        "g": generation,
        "w": {"B": orjson.dumps(paths)},
        "l": {"B": orjson.dumps(state.longest)},
        "ws": {"N": str(state.wait_shards)},
        **({"st": generation} if has_starts else {}),
    }


def _paths(raw: list[list[str]] | None) -> Paths | None:
    return None if raw is None else tuple(tuple(path) for path in raw)

"""The state that all functions share: one item with the wait paths and a counter of changes.

A process that caches functions reads them again when the counter has changed.
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
    """The shared state of all functions.

    `generation`: number of changes. `paths`: wait paths by event name. `longest`: by event name, how long after
    acceptance (ms) a wait may need an event. `wait_shards`: number of partitions for waits without a key. `has_starts`:
    every function has a start item.
    """

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
    """Applies `edit` and increments the counter, again after a concurrent change. False if `edit` changes nothing.

    `write_starts`: writes the start items of all functions. It is called first if they are missing, for example after
    a change by an earlier version of Stepwell.
    """
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

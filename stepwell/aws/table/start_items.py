"""Start items: the triggers of functions, in small items that a cold start reads instead of whole definitions.

A definition is read and compiled when an event starts the function. A start item is written after the function's own
item and before the change counter, and never replaces a newer one.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from stepwell.aws.clients import client
from stepwell.aws.table.items import read_partition
from stepwell.aws.table.keys import META, NOT_NEWER, STARTS, Item, starts_key
from stepwell.aws.table.routings import read_routing, routing_attributes
from stepwell.core.plan import Plan, Trigger
from stepwell.core.routing.heads import Head, indexes_json, with_indexes
from stepwell.core.routing.versions import Route


def put_starts(table: str, function: Item, plans: Sequence[Plan]) -> None:
    """Writes the start item of a function. `plans`: the versions that may get new runs."""
    routing, rev = read_routing(function), function.get("rev", {"N": "0"})
    triggers = {
        str(plan.version): [[t.event, t.expression, t.cron, t.timezone] for t in plan.triggers] for plan in plans
    }
    item = {
        **starts_key(function["sk"]["S"]),
        **routing_attributes(routing),
        "rev": rev,
        "t": {"B": orjson.dumps(triggers)},
    }
    indexes = {str(plan.version): indexes_json(plan.triggers) for plan in plans}
    if any(any(index) for index in indexes.values()):  # not in `t`, which earlier versions of Stepwell read
        item["ix"] = {"B": orjson.dumps(indexes)}
    dynamodb = client("dynamodb")
    try:
        dynamodb.put_item(
            TableName=table, Item=item, ConditionExpression=NOT_NEWER, ExpressionAttributeValues={":rev": rev}
        )
    except dynamodb.exceptions.ConditionalCheckFailedException:
        return  # a later change of the function has already written a newer item


def read_routes(table: str) -> list[Route]:
    """The routes of all live functions, with a `Head` for each version that may get new runs."""
    items = read_partition(table, META, STARTS, ConsistentRead=True)
    return [route for route in map(_route, items) if route is not None]


def _route(item: Item) -> Route | None:
    routing, triggers = read_routing(item), orjson.loads(item["t"]["B"])
    indexes = orjson.loads(item["ix"]["B"]) if "ix" in item else {}
    if routing.live is None:
        return None

    def head(version: int) -> Head:
        items = [Trigger(*row) for row in triggers[str(version)]]
        return Head(item["sk"]["S"].removeprefix(STARTS), version, with_indexes(items, indexes.get(str(version))))

    canary = routing.canary
    if canary is None:
        return Route(head(routing.live), state=routing.state)
    return Route(head(routing.live), head(canary.version), canary.weight, canary.sticky, routing.state)

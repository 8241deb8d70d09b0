"""Reading items of the table, many at once or by partition. One rule: what DynamoDB left out is asked for again."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from typing import Any

from stepwell.aws.clients import client
from stepwell.aws.table import Item, Key

_MOST = 100  # keys that BatchGetItem takes


def read_items(table: str, keys: Iterable[Key], *, consistent: bool) -> list[Item]:
    """Items by key, in no order; those that are not there are left out."""
    found: list[Item] = []
    todo = list({(key["pk"]["S"], key["sk"]["S"]): key for key in keys}.values())
    pause = 0.02
    while todo:
        request = {table: {"Keys": todo[:_MOST], "ConsistentRead": consistent}}
        answer = client("dynamodb").batch_get_item(RequestItems=request)
        read = answer["Responses"].get(table, [])
        left = answer.get("UnprocessedKeys", {}).get(table, {}).get("Keys", [])
        found += read
        todo = [*left, *todo[_MOST:]]
        if left and not read:  # throttled; else the answer was full
            time.sleep(random.uniform(0, pause))
            pause = min(2 * pause, 1)
    return found


def read_item(table: str, key: Key) -> Item | None:
    """Strongly consistent."""
    item: Item | None = client("dynamodb").get_item(TableName=table, Key=key, ConsistentRead=True).get("Item")
    return item


def read_partition(table: str, partition: str, **options: Any) -> list[Item]:
    """All items of a partition, in the order of their sort keys."""
    pages = client("dynamodb").get_paginator("query").paginate(
        TableName=table,
        KeyConditionExpression="pk = :partition",
        ExpressionAttributeValues={":partition": {"S": partition}},
        **options,
    )  # fmt: skip
    return [item for page in pages for item in page["Items"]]

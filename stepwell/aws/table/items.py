"""Reads and writes items of the table, in batches or by partition.

Keys and items that DynamoDB leaves unprocessed are sent again, with a growing delay while it throttles.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from typing import Any

from stepwell.aws.clients import client
from stepwell.aws.table.keys import Item, Key

_MOST_READ = 100  # keys in one BatchGetItem
_MOST_WRITTEN = 25  # items in one BatchWriteItem


def read_items(table: str, keys: Iterable[Key], *, consistent: bool) -> list[Item]:
    """The items of these keys, in no particular order, without those that do not exist."""
    found: list[Item] = []
    todo = list({(key["pk"]["S"], key["sk"]["S"]): key for key in keys}.values())
    pause = _Pause()
    while todo:
        request = {table: {"Keys": todo[:_MOST_READ], "ConsistentRead": consistent}}
        answer = client("dynamodb").batch_get_item(RequestItems=request)
        read = answer["Responses"].get(table, [])
        left = answer.get("UnprocessedKeys", {}).get(table, {}).get("Keys", [])
        found += read
        todo = [*left, *todo[_MOST_READ:]]
        if left and not read:  # throttled; otherwise the answer reached the size limit
            pause()
    return found


def read_item(table: str, key: Key) -> Item | None:
    """The item of a key, or None. The read is strongly consistent."""
    item: Item | None = client("dynamodb").get_item(TableName=table, Key=key, ConsistentRead=True).get("Item")
    return item


def read_partition(table: str, partition: str, prefix: str = "", *, first: str = "", **options: Any) -> list[Item]:
    """All items of a partition, ordered by sort key.

    `prefix`: only sort keys that begin with it. `first`: only from this sort key on; it begins with `prefix`.
    """
    condition, values = "pk = :partition", {":partition": {"S": partition}}
    if first:
        condition += " AND sk BETWEEN :first AND :last"
        values |= {":first": {"S": first}, ":last": {"S": f"{prefix}\U0010ffff"}}
    elif prefix:
        condition += " AND begins_with(sk, :prefix)"
        values[":prefix"] = {"S": prefix}
    pages = client("dynamodb").get_paginator("query").paginate(
        TableName=table, KeyConditionExpression=condition, ExpressionAttributeValues=values, **options
    )  # fmt: skip
    return [item for page in pages for item in page["Items"]]


def put_items(table: str, items: Iterable[Item]) -> None:
    """Writes items without conditions; existing items are replaced."""
    _write(table, [{"PutRequest": {"Item": item}} for item in items])


def delete_items(table: str, keys: Iterable[Key]) -> None:
    unique = {(key["pk"]["S"], key["sk"]["S"]): key for key in keys}  # DynamoDB refuses duplicates in a request
    _write(table, [{"DeleteRequest": {"Key": key}} for key in unique.values()])


def _write(table: str, todo: Sequence[dict[str, Any]]) -> None:
    pause = _Pause()
    while todo:
        answer = client("dynamodb").batch_write_item(RequestItems={table: todo[:_MOST_WRITTEN]})
        left = answer.get("UnprocessedItems", {}).get(table, [])
        todo = [*left, *todo[_MOST_WRITTEN:]]
        if left:  # throttled
            pause()


class _Pause:
    """Sleeps a random time: the upper bound doubles with each call, up to a second."""

    def __init__(self) -> None:
        self._longest = 0.02

    def __call__(self) -> None:
        time.sleep(random.uniform(0, self._longest))
        self._longest = min(2 * self._longest, 1)

"""The table as the engine uses it: items by key, conditional writes, many requests at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from stepwell.aws.clients import client
from stepwell.aws.table.items import read_items
from stepwell.aws.table.keys import Item, Key

T = TypeVar("T")
A = TypeVar("A")
_PARALLEL = 16


class Table:
    def __init__(self, name: str) -> None:
        self.name = name
        self._pool = ThreadPoolExecutor(_PARALLEL)

    @property
    def errors(self) -> Any:
        """Exceptions of DynamoDB's client, by name."""
        return client("dynamodb").exceptions

    def each(self, do: Callable[[A], T], arguments: Sequence[A]) -> list[T]:
        """Do it for every one, in parallel if there are several."""
        return list(map(do, arguments)) if len(arguments) < 2 else list(self._pool.map(do, arguments))

    def get_many(self, keys: Sequence[Key]) -> list[Item]:
        """Items by key, strongly consistent; those that are not there are left out."""
        return read_items(self.name, keys, consistent=True)

    def put(self, item: Item, condition: str | None = None, values: Item | None = None) -> None:
        """Raises ConditionalCheckFailedException, with the item that is there."""
        options: dict[str, Any] = {}
        if condition is not None:
            options = {"ConditionExpression": condition, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
        if values is not None:
            options["ExpressionAttributeValues"] = values
        client("dynamodb").put_item(TableName=self.name, Item=item, **options)

    def query(self, **options: Any) -> list[Item]:
        """A page of a query, strongly consistent."""
        found: list[Item] = client("dynamodb").query(TableName=self.name, ConsistentRead=True, **options)["Items"]
        return found

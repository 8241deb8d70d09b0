"""The table for the engine: reads by key, conditional writes, parallel requests."""

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
        """The exception classes of the DynamoDB client."""
        return client("dynamodb").exceptions

    def each(self, do: Callable[[A], T], arguments: Sequence[A]) -> list[T]:
        """Calls `do` with each argument, in parallel if there are several. Returns the results in order."""
        return list(map(do, arguments)) if len(arguments) < 2 else list(self._pool.map(do, arguments))

    def get_many(self, keys: Sequence[Key]) -> list[Item]:
        """The items of these keys, strongly consistent, without those that do not exist."""
        return read_items(self.name, keys, consistent=True)

    def put(self, item: Item, condition: str | None = None, values: Item | None = None) -> None:
        """Writes an item. Raises ConditionalCheckFailedException, which contains the existing item."""
        options: dict[str, Any] = {}
        if condition is not None:
            options = {"ConditionExpression": condition, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
        if values is not None:
            options["ExpressionAttributeValues"] = values
        client("dynamodb").put_item(TableName=self.name, Item=item, **options)

    def query(self, **options: Any) -> list[Item]:
        """The items of one page of a query, strongly consistent."""
        found: list[Item] = client("dynamodb").query(TableName=self.name, ConsistentRead=True, **options)["Items"]
        return found

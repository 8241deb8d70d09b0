"""Reads the emulator's DynamoDB tables for tests, without requests that would be counted or take time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.models.dynamo_type import DynamoType


class Tables:
    def __init__(self, account: str, region: str, lock: threading.RLock) -> None:  # type: ignore[valid-type, unused-ignore]
        self._account, self._region, self._lock = account, region, lock

    def partition(self, table: str, pk: str) -> Iterator[dict[str, Any]]:
        """The items with this partition key, unsorted, each as `{attribute: {type: value}}`."""
        with self._lock:
            items = dynamodb_backends[self._account][self._region].tables[table].items
            found: Any = list(items.get(DynamoType({"S": pk}), {}).values())
        return ({name: {item.type: item.value} for name, item in item.attrs.items()} for item in found)

"""Versions of functions in the table: one item each. Only the targets that execute the steps may change."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from stepwell.aws.clients import client
from stepwell.aws.table.items import read_item, read_partition
from stepwell.aws.table.keys import EXISTS, NEW, Item, version_key
from stepwell.core.compile import compile_plan, version_hash
from stepwell.core.plan import Plan

Target = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Version:
    plan: Plan
    definition: bytes  # JSON, normalised
    targets: dict[str, Target]  # by step: the Lambda or task definition that executes it
    hash: str
    created_at: int
    message: str
    author: str


@dataclass(frozen=True, slots=True)
class NewVersion:
    """The content of a pushed version.

    `definition`: normalised. `targets`: by step, the resource that executes it. `code`: hashes of the steps' code.
    `file`: the name of the definition's file.
    """

    definition: Mapping[str, Any]
    targets: Mapping[str, Target]
    code: Mapping[str, str]
    message: str
    author: str
    file: str

    def item(self, now: int) -> Item:
        return {
            "hash": {"S": version_hash(self.definition, self.code)},
            "d": {"B": zlib.compress(orjson.dumps(self.definition), 9)},
            "t": {"B": orjson.dumps(self.targets)},
            "at": {"N": str(now)},
            "message": {"S": self.message},
            "author": {"S": self.author},
        }


class Versions:
    """Reads and writes versions."""

    def __init__(self, table: str) -> None:
        self._table = table

    @property
    def _db(self) -> Any:
        return client("dynamodb")

    def all(self, function_id: str) -> list[tuple[int, Version]]:
        """All versions of a function, oldest first."""
        items = read_partition(self._table, f"V#{function_id}", ConsistentRead=True)
        return [(number := int(item["sk"]["S"]), read_version(item, number)) for item in items]

    def get(self, function_id: str, number: int) -> Version:
        """A version. Raises KeyError if it does not exist."""
        item = read_item(self._table, version_key(function_id, number))
        if item is None:
            raise KeyError(f"{function_id} has no version {number}")
        return read_version(item, number)

    def numbers(self, function_id: str) -> tuple[list[int], set[int]]:
        """The numbers of all versions, and the numbers of those that were pruned."""
        items = read_partition(self._table, f"V#{function_id}", ConsistentRead=True, ProjectionExpression="sk, gone")
        return [int(item["sk"]["S"]) for item in items], {int(item["sk"]["S"]) for item in items if "gone" in item}

    def add(self, function_id: str, item: Item) -> tuple[int, bool]:
        """Writes a version, unless it equals the newest one. Returns the number, and whether the version is new."""
        while True:
            newest = self._newest(function_id)
            if newest is not None and newest[1] == item["hash"]["S"]:
                self._refresh(function_id, newest[0], item)
                return newest[0], False
            number = newest[0] + 1 if newest else 1
            try:
                new = {**version_key(function_id, number), **item}
                self._db.put_item(TableName=self._table, Item=new, ConditionExpression=NEW)
                return number, True
            except self._db.exceptions.ConditionalCheckFailedException:
                continue  # another push has written this number

    def mark_gone(self, function_id: str, number: int) -> None:
        """Marks a version as pruned: its Lambdas are removed, so it cannot go live until it is pushed again."""
        self._db.update_item(
            TableName=self._table,
            Key=version_key(function_id, number),
            UpdateExpression="SET gone = :yes",
            ConditionExpression=EXISTS,
            ExpressionAttributeValues={":yes": {"BOOL": True}},
        )

    def _refresh(self, function_id: str, number: int, item: Item) -> None:
        """Replaces the targets of an unchanged version, and makes a pruned version usable again."""
        self._db.update_item(
            TableName=self._table,
            Key=version_key(function_id, number),
            UpdateExpression="SET t = :t REMOVE gone",
            ExpressionAttributeValues={":t": item["t"]},
        )

    def _newest(self, function_id: str) -> tuple[int, str] | None:
        found = self._db.query(
            TableName=self._table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": f"V#{function_id}"}},
            ScanIndexForward=False,
            Limit=1,
            ConsistentRead=True,
        )["Items"]
        return (int(found[0]["sk"]["S"]), found[0]["hash"]["S"]) if found else None


def read_version(item: Item, number: int) -> Version:
    """The version in a version's item, or in a function's item, which contains a copy of the live version."""
    definition = zlib.decompress(item["d"]["B"])
    return Version(
        compile_plan(orjson.loads(definition), number),
        definition,
        orjson.loads(item["t"]["B"]),
        item["hash"]["S"],
        int(item["at"]["N"]),
        item["message"]["S"],
        item["author"]["S"],
    )

"""The runs that hold the keys of `singleton`, with one read and one conditional write for each start."""

from __future__ import annotations

from typing import Any

from stepwell.aws.clients import client
from stepwell.aws.table.items import read_item
from stepwell.aws.table.keys import HELD_BY, NEW, OF_RUN, Item, singleton_key
from stepwell.core.plan import Plan
from stepwell.core.run.max_run_duration import longest_run_ms
from stepwell.platform import NotWritten
from stepwell.start_checks import Holder

_MONTH_MS = 30 * 86_400_000  # a run may take longer than expected, if a step returns a long `retry_after`


class DynamoSingletons:
    """Implements `start_checks.Singletons`."""

    write_ms = 90_000  # more than the timeouts of the Lambdas that start runs

    def __init__(self, table: str) -> None:
        self._table = table

    def read(self, function_id: str, key: bytes) -> Holder | None:
        try:
            item = read_item(self._table, singleton_key(function_id, key))
        except client("dynamodb").exceptions.ClientError as error:
            raise NotWritten(str(error)) from error
        if item is None:
            return None
        replaces = tuple(run["S"] for run in item.get("rp", {"L": []})["L"])
        return Holder(item["r"]["S"], int(item["p"]["N"]), int(item["at"]["N"]), replaces)

    def take(self, function_id: str, key: bytes, seen: Holder | None, new: Holder, plan: Plan) -> bool:
        db = client("dynamodb")
        item: Item = {
            **singleton_key(function_id, key),
            "r": {"S": new.run_id},
            "p": {"N": str(new.position)},
            "at": {"N": str(new.at)},
            "ttl": {"N": str((new.at + longest_run_ms(plan) + _MONTH_MS) // 1000)},
        }
        if new.replaces:
            item["rp"] = {"L": [{"S": run_id} for run_id in new.replaces]}
        try:
            db.put_item(TableName=self._table, Item=item, **_condition(seen))
        except db.exceptions.ConditionalCheckFailedException:
            return False
        except db.exceptions.ClientError as error:
            raise NotWritten(str(error)) from error
        return True

    def forget(self, function_id: str, key: bytes, run_id: str) -> None:
        """Deletes a claim, because the key belongs to an erased user."""
        db = client("dynamodb")
        condition = {"ConditionExpression": OF_RUN, "ExpressionAttributeValues": {":run": {"S": run_id}}}
        try:
            db.delete_item(TableName=self._table, Key=singleton_key(function_id, key), **condition)
        except db.exceptions.ConditionalCheckFailedException:
            return  # of another run


def _condition(seen: Holder | None) -> dict[str, Any]:
    if seen is None:
        return {"ConditionExpression": NEW}
    values = {":run": {"S": seen.run_id}, ":at": {"N": str(seen.at)}}
    return {
        "ConditionExpression": HELD_BY,
        "ExpressionAttributeValues": values,
        "ExpressionAttributeNames": {"#at": "at"},
    }

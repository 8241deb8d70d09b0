"""The state of a throttle in the table: when the next start is due, in one item for each key.

A start changes the item on the condition that it is as it was read. The item names the start that came last, so that
one that is repeated after a crash does not count twice. It also has the time of the message that lets the next one in.
"""

from __future__ import annotations

from stepwell.aws.clients import client
from stepwell.aws.table.items import read_item
from stepwell.aws.table.limit_keys import permits_key
from stepwell.aws.table.permits import Bucket, name_of
from stepwell.core.flow.spread import Rate
from stepwell.platform import AttemptId

_DAY_MS = 86_400_000
_SECOND = 1000  # messages are due at whole seconds


class Throttles:
    def __init__(self, table: str) -> None:
        self._table = table

    def take(self, bucket: Bucket, start: AttemptId, now: int, *, overtakes: bool) -> bool:
        """Takes the next start of a throttle, if it is due. Returns whether it did, or had done so before.

        `overtakes`: also if others wait.
        """
        dynamodb = client("dynamodb")
        while True:
            item = read_item(self._table, permits_key(bucket.partition, 0)) or {}
            if item.get("l") == {"S": name_of(start)}:
                return True
            theoretical = float(item["c"]["N"]) if "c" in item else 0
            if ("w" in item and not overtakes) or due_at(bucket, theoretical) > now:
                return False
            values = {":next": {"N": repr(_after(bucket, theoretical, now))}, ":me": {"S": name_of(start)}}
            values[":ttl"] = {"N": str((now + 2 * _DAY_MS) // 1000 + 2 * bucket.limit.period_ms // 1000)}
            try:
                dynamodb.update_item(
                    TableName=self._table,
                    Key=permits_key(bucket.partition, 0),
                    UpdateExpression="SET c = :next, l = :me, #ttl = :ttl",
                    ConditionExpression="c = :seen" if "c" in item else "attribute_not_exists(c)",
                    ExpressionAttributeNames={"#ttl": "ttl"},
                    ExpressionAttributeValues={**values, **({":seen": item["c"]} if "c" in item else {})},
                )
            except dynamodb.exceptions.ConditionalCheckFailedException:
                continue
            return True

    def is_due(self, bucket: Bucket, now: int) -> bool:
        """Whether the next start of a throttle is due."""
        item = read_item(self._table, permits_key(bucket.partition, 0)) or {}
        return due_at(bucket, float(item["c"]["N"]) if "c" in item else 0) <= now

    def next_message(self, bucket: Bucket, now: int, *, again: bool) -> int | None:
        """When a message must let the next start in, in ms since the epoch; None if one will come by then.

        `again`: the process that noted the message may have died before it sent it.
        """
        item = read_item(self._table, permits_key(bucket.partition, 0)) or {}
        due = round(due_at(bucket, float(item["c"]["N"]) if "c" in item else 0) + 0.5)
        noted = int(item["d"]["N"]) if "d" in item else 0
        return None if now < noted <= due and not again else max(due, now + 1)

    def note_message(self, bucket: Bucket, due: int) -> None:
        """Notes that a message was sent that is due at this time."""
        client("dynamodb").update_item(
            TableName=self._table,
            Key=permits_key(bucket.partition, 0),
            UpdateExpression="SET d = :due",
            ExpressionAttributeValues={":due": {"N": str(due)}},
        )


def due_at(bucket: Bucket, theoretical: float) -> float:
    """When the next start is due, in ms since the epoch."""
    return _rate(bucket).earliest(theoretical)


def _after(bucket: Bucket, theoretical: float, now: int) -> float:
    """The theoretical arrival time after a start. Starts that are less than a second apart start together, once a
    second, because messages are due at whole seconds. So none is lost that was due within the last second."""
    limit = bucket.limit
    is_dense = limit.period_ms < _SECOND * (limit.limit or 1)
    return _rate(bucket).after(theoretical, now - _SECOND + 1 if is_dense else now)


def _rate(bucket: Bucket) -> Rate:
    limit = bucket.limit
    return Rate(limit.limit or 1, limit.period_ms, limit.burst)

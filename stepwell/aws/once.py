"""Which run counts for a value of `idempotency`: one conditional write for each start of a function that has it.

One rule: the claim names the run, whose id follows from function and event. So an event that is delivered again finds
its own claim and goes on, and of two that race one finds that of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stepwell.aws.clients import client
from stepwell.aws.event_items import event_item
from stepwell.aws.positions import ms_of
from stepwell.aws.table import FREE, once_key
from stepwell.core.catalog import Miss
from stepwell.core.idempotency import WINDOW_MS
from stepwell.platform import Accepted, NewEvent, NotWritten

_DAY_S = 86_400


class DynamoOnce:
    """Implements `platform.Once`."""

    def __init__(self, table: str, ttl_of: Callable[[NewEvent, int], int]) -> None:
        """`ttl_of`: until when an event is kept, in s since the epoch."""
        self._table, self._ttl_of = table, ttl_of

    def claim(self, function_id: str, value: bytes, run_id: str, accepted: Accepted, now: int) -> str:
        db, at = client("dynamodb"), ms_of(accepted.position)  # the same if the event is delivered again
        until = at + WINDOW_MS
        item = {
            **once_key(function_id, value),
            "r": {"S": run_id},
            "u": {"N": str(until)},
            "ttl": {"N": str(until // 1000 + _DAY_S)},
        }
        try:
            db.put_item(
                TableName=self._table,
                Item=item,
                ConditionExpression=FREE,
                ExpressionAttributeValues={":at": {"N": str(at)}},
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except db.exceptions.ConditionalCheckFailedException as refused:
            first: str = refused.response["Item"]["r"]["S"]
            return first
        except db.exceptions.ClientError as error:
            raise NotWritten(str(error)) from error
        return run_id

    def refuse(self, new: NewEvent, accepted: Accepted, misses: Sequence[Miss], now: int) -> None:
        """The event's item once more, as if the event had never named these functions as its starts."""
        refused = {miss.function_id for miss in misses}
        starts = [function for function in accepted.starts if function not in refused]
        accepted = Accepted(accepted.position, starts)
        item = event_item(new, accepted, [*new.misses, *misses], self._ttl_of(new, now))
        db = client("dynamodb")
        try:
            db.put_item(TableName=self._table, Item=item)
        except db.exceptions.ClientError as error:
            raise NotWritten(str(error)) from error

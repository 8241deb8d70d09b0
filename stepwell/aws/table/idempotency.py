"""Which run counts for a value of `idempotency`: one conditional write for each start of a function that has it.

One rule: the claim names the run, whose id follows from function and event. So an event that is delivered again finds
its own claim and goes on, and of two that race one finds that of the other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from stepwell.aws.clients import client
from stepwell.aws.table.events import misses_text
from stepwell.aws.table.items import read_item
from stepwell.aws.table.keys import FREE, OF_RUN, SAME, SAME_WITHOUT, Item, event_key, once_key
from stepwell.aws.table.positions import ms_of
from stepwell.core.events.events import Event
from stepwell.core.routing.idempotency import WINDOW_MS
from stepwell.core.routing.not_started import NotStarted
from stepwell.platform import NotWritten

_DAY_S = 86_400
_TRIES = 5


class DynamoIdempotency:
    """Implements `platform.Idempotency`."""

    def __init__(self, table: str) -> None:
        self._table = table

    def claim(self, function_id: str, value: bytes, run_id: str, position: int) -> str:
        db, at = client("dynamodb"), ms_of(position)  # the same if the event is delivered again
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

    def forget(self, function_id: str, value: bytes, run_id: str) -> None:
        """Take a claim back: the value is that of somebody who was erased."""
        db = client("dynamodb")
        with contextlib.suppress(db.exceptions.ConditionalCheckFailedException):  # another run's, or over
            db.delete_item(
                TableName=self._table,
                Key=once_key(function_id, value),
                ConditionExpression=OF_RUN,
                ExpressionAttributeValues={":run": {"S": run_id}},
            )

    def refuse(self, event: Event, misses: Sequence[NotStarted]) -> None:
        """Write the event's item once more, unless it was changed meanwhile: erased, or given another miss."""
        db = client("dynamodb")
        try:
            for _ in range(_TRIES):
                item = read_item(self._table, event_key(event.id))
                if item is None:
                    return
                kept = item["ms"]["B"] if "ms" in item else None
                text = misses_text(kept, misses)
                if text == kept or self._replace(item, kept, text):
                    return
        except db.exceptions.ClientError as error:
            raise NotWritten(str(error)) from error
        raise NotWritten(f"event {event.id} is changed by others all the time")

    def _replace(self, item: Item, kept: bytes | None, text: bytes) -> bool:
        db = client("dynamodb")
        values: Item = {":body": item["b"]} if kept is None else {":body": item["b"], ":kept": {"B": kept}}
        try:
            db.put_item(
                TableName=self._table,
                Item={**item, "ms": {"B": text}},
                ConditionExpression=SAME if kept is not None else SAME_WITHOUT,
                ExpressionAttributeValues=values,
            )
        except db.exceptions.ConditionalCheckFailedException:
            return False
        return True

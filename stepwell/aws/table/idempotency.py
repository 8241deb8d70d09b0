"""Ensures one run for each value of `idempotency`, with one conditional write for each start.

The claim stores the run's id, which is derived from the function and the event. So an event that is delivered again
finds the run's own claim and goes on. Of two concurrent events, one finds the claim of the other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from stepwell.aws.clients import client
from stepwell.aws.table.events import not_started_json
from stepwell.aws.table.items import read_item
from stepwell.aws.table.keys import FREE, OF_RUN, SAME, SAME_WITHOUT, Item, event_key, idempotency_key
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
        """The id of the run that holds the value: `run_id`, or the run that claimed it earlier. Raises NotWritten."""
        db, at = client("dynamodb"), ms_of(position)  # the same time if the event is delivered again
        until = at + WINDOW_MS
        item = {
            **idempotency_key(function_id, value),
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
        """Deletes a claim, because the user whose value it stores was erased."""
        db = client("dynamodb")
        with contextlib.suppress(db.exceptions.ConditionalCheckFailedException):  # expired, or of another run
            db.delete_item(
                TableName=self._table,
                Key=idempotency_key(function_id, value),
                ConditionExpression=OF_RUN,
                ExpressionAttributeValues={":run": {"S": run_id}},
            )

    def refuse(self, event: Event, misses: Sequence[NotStarted]) -> None:
        """Adds reasons to the event's item. Tries again if the item changed meanwhile. Raises NotWritten."""
        db = client("dynamodb")
        try:
            for _ in range(_TRIES):
                item = read_item(self._table, event_key(event.id))
                if item is None:
                    return
                stored = item["ms"]["B"] if "ms" in item else None
                text = not_started_json(stored, misses)
                if text == stored or self._replace(item, stored, text):
                    return
        except db.exceptions.ClientError as error:
            raise NotWritten(str(error)) from error
        raise NotWritten(f"event {event.id} was changed by other processes {_TRIES} times in a row")

    def _replace(self, item: Item, stored: bytes | None, text: bytes) -> bool:
        """Whether the item was written; False if it changed since it was read."""
        db = client("dynamodb")
        values: Item = {":body": item["b"]} if stored is None else {":body": item["b"], ":stored": {"B": stored}}
        try:
            db.put_item(
                TableName=self._table,
                Item={**item, "ms": {"B": text}},
                ConditionExpression=SAME if stored is not None else SAME_WITHOUT,
                ExpressionAttributeValues=values,
            )
        except db.exceptions.ConditionalCheckFailedException:
            return False
        return True

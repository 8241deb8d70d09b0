"""Ensures one run for each value of `idempotency`, with one conditional write for each start.

The claim stores the run's id, which is derived from the function and the event. So an event that is delivered again
finds the run's own claim and goes on. Of two concurrent events, one finds the claim of the other.
"""

from __future__ import annotations

import contextlib

from stepwell.aws.clients import client
from stepwell.aws.table.keys import FREE, OF_RUN, idempotency_key
from stepwell.aws.table.positions import ms_of
from stepwell.core.routing.idempotency import WINDOW_MS
from stepwell.platform import NotWritten

_DAY_S = 86_400


class DynamoIdempotency:
    """Implements `start_checks.Idempotency`."""

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

    def release(self, function_id: str, value: bytes, run_id: str) -> None:
        """Lets the claim of a run that is not started expire at once. Raises NotWritten."""
        db = client("dynamodb")
        item = {**idempotency_key(function_id, value), "r": {"S": run_id}, "u": {"N": "0"}, "ttl": {"N": "1"}}
        try:
            db.put_item(
                TableName=self._table,
                Item=item,
                ConditionExpression=OF_RUN,
                ExpressionAttributeValues={":run": {"S": run_id}},
            )
        except db.exceptions.ConditionalCheckFailedException:
            return
        except db.exceptions.ClientError as error:
            raise NotWritten(str(error)) from error

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

"""What the checks of starts store in the table."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import orjson

from stepwell.aws.clients import client
from stepwell.aws.table.events import not_started_json
from stepwell.aws.table.idempotency import DynamoIdempotency
from stepwell.aws.table.items import read_item
from stepwell.aws.table.keys import SAME, SAME_WITHOUT, Item, event_key
from stepwell.aws.table.rate_limits import DynamoRateLimits
from stepwell.aws.table.singletons import DynamoSingletons
from stepwell.core.events.events import Event
from stepwell.core.flow.keys import claimed_key
from stepwell.core.plan import Plan
from stepwell.core.routing.idempotency import claimed_value
from stepwell.core.routing.not_started import NotStarted
from stepwell.platform import NotWritten

_TRIES = 5


class DynamoStartChecks:
    """Implements `start_checks.StartChecks`."""

    def __init__(self, table: str) -> None:
        self._table = table
        self.idempotency = DynamoIdempotency(table)
        self.rate_limits = DynamoRateLimits(table)
        self.singletons = DynamoSingletons(table)

    def refuse(self, event: Event, not_started: Sequence[NotStarted]) -> None:
        """Adds reasons to the event's item. Tries again if the item changed meanwhile. Raises NotWritten."""
        db = client("dynamodb")
        try:
            for _ in range(_TRIES):
                item = read_item(self._table, event_key(event.id))
                if item is None:
                    return
                stored = item["ms"]["B"] if "ms" in item else None
                text = not_started_json(stored, not_started)
                if text == stored or self._replace(item, stored, text):
                    return
        except db.exceptions.ClientError as error:
            raise NotWritten(str(error)) from error
        raise NotWritten(f"event {event.id} was changed by other processes {_TRIES} times in a row")

    def refused(self, event: Event) -> Collection[str]:
        """The functions in the reasons that are stored with the event. Raises NotWritten."""
        try:
            item = read_item(self._table, event_key(event.id))
        except client("dynamodb").exceptions.ClientError as error:
            raise NotWritten(str(error)) from error
        stored = orjson.loads(item["ms"]["B"]) if item is not None and "ms" in item else ()
        return {row["function_id"] for row in stored}

    def forget(self, plan: Plan, event: Event, run_id: str, since: int) -> None:
        """Releases what a run of an erased user has claimed: digests of values are stored. Raises NotWritten.

        `since`: runs that were created before this time (ms) are no longer stored.
        """
        if (value := claimed_value(plan.idempotency, event)) is not None:
            self.idempotency.forget(plan.function_id, value, run_id)
        if plan.rate_limit is not None and (key := claimed_key(plan.rate_limit.key, event)) is not None:
            self.rate_limits.forget(plan.function_id, key, run_id, since)
        if plan.singleton is not None and (key := claimed_key(plan.singleton.key, event)) is not None:
            self.singletons.forget(plan.function_id, key, run_id)

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

"""Cron triggers: when each is due next, and the messages that become ticks.

A deploy of a function changes no infrastructure: its triggers are items, and the minute's `tick` reads them. One rule:
the message is sent before the next time is written, and a tick's id makes a second message of it a duplicate.
"""

from __future__ import annotations

from typing import Any

from stepwell.aws.clients import client
from stepwell.aws.items import read_partition
from stepwell.aws.messages import delay_s, entry, tick_message
from stepwell.aws.outbox import send_messages
from stepwell.aws.resources import Resources
from stepwell.aws.table import Item
from stepwell.core.cron import latest_tick, next_tick

AHEAD_MS = 120_000  # two rounds of `tick`, so that none is late if one is


class Schedules:
    def __init__(self, resources: Resources) -> None:
        self._table, self._queue = resources.table, resources.outcomes_queue

    def send(self, now: int) -> None:
        """Send the ticks that are due soon; after a downtime only the latest that was missed. Raises NotSent."""
        for item in read_partition(self._table, "C", ConsistentRead=True):
            if int(item["next"]["N"]) <= now + AHEAD_MS:
                self._send(item, now)

    def _send(self, item: Item, now: int) -> None:
        function_id, cron, timezone = item["sk"]["S"].split("#")
        due = int(item["next"]["N"])
        at = latest_tick(cron, timezone, due - 1, now) or due
        ticks = []
        while at <= now + AHEAD_MS:
            ticks.append(at)
            at = next_tick(cron, timezone, at)
        messages = [entry(tick_message(function_id, cron, timezone, tick), delay_s(tick, now)) for tick in ticks]
        send_messages(self._queue, messages)
        self._update(item, at)

    def _update(self, item: Item, at: int) -> None:
        values: dict[str, Any] = {":next": {"N": str(at)}, ":before": item["next"]}
        db = client("dynamodb")
        try:
            db.update_item(
                TableName=self._table,
                Key={"pk": item["pk"], "sk": item["sk"]},
                UpdateExpression="SET #next = :next",
                ConditionExpression="#next = :before",
                ExpressionAttributeNames={"#next": "next"},
                ExpressionAttributeValues=values,
            )
        except db.exceptions.ConditionalCheckFailedException:
            pass  # another `tick` did it, or the trigger was taken away

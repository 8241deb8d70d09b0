"""Schedules of cron triggers and of checks of guarded canaries.

A trigger is an item with the time of the next tick, and the Lambda `tick` reads all of them every minute. So a push
changes no infrastructure. The message of a tick is sent before the next time is written. A second message of the same
tick has the same event id, so it is dropped as a duplicate.
"""

from __future__ import annotations

import logging
from typing import Any

from stepwell.aws.clients import client
from stepwell.aws.queues.messages import delay_s, entry, tick_message, tick_name
from stepwell.aws.queues.outbox import send_messages
from stepwell.aws.resources import Resources
from stepwell.aws.signing.tokens import Tokens
from stepwell.aws.table.items import delete_items, put_items, read_partition
from stepwell.aws.table.keys import Item, guard_key, schedule_key
from stepwell.core.events.cron import latest_tick, next_tick
from stepwell.core.plan import Plan

AHEAD_MS = 120_000  # two invocations of `tick`, so that ticks are on time even if one invocation is late
GUARD_EVERY_MS = 60_000
_SKEW_MS = 60_000  # how far the clock that wrote a time may have been ahead of this clock

log = logging.getLogger("stepwell.aws")


class Schedules:
    """Sets the schedules of functions, and sends the messages of ticks."""

    def __init__(self, resources: Resources) -> None:
        self._table, self._queue = resources.table, resources.outcomes_queue

    def set(self, function_id: str, plan: Plan | None, paused: bool, guarded: bool, now: int) -> None:
        """Writes the schedules of a function's cron triggers and deletes those that no longer exist.

        `plan` None: no triggers. A trigger that is unchanged keeps the time of the next tick. Ticks during a pause are
        missed, even if their messages were sent before it.
        """
        triggers = {(str(t.cron), t.timezone) for t in plan.triggers if t.cron is not None} if plan else set()
        wanted = {schedule_key(function_id, *trigger)["sk"]["S"]: trigger for trigger in triggers}
        existing = {
            item["sk"]["S"]: item for item in read_partition(self._table, "C", f"{function_id}#", ConsistentRead=True)
        }
        guard = guard_key(function_id)
        has_guard = existing.pop(guard["sk"]["S"], None) is not None
        put: list[Item] = []
        if guarded and not has_guard:
            put.append({**guard, "next": {"N": str(now + AHEAD_MS + GUARD_EVERY_MS)}})
        obsolete = [{"pk": {"S": "C"}, "sk": {"S": sk}} for sk in existing.keys() - wanted.keys()]
        for sk, trigger in wanted.items():
            item = existing.get(sk)
            if item is not None and ("paused" in item) == paused:
                continue
            due = next_tick(*trigger, now)
            if item is not None:
                due = min(due, int(item["next"]["N"])) if paused else int(item["next"]["N"])
            new: Item = {"pk": {"S": "C"}, "sk": {"S": sk}, "next": {"N": str(due)}}
            put.append({**new, "paused": {"BOOL": True}} if paused else new)
        put_items(self._table, put)
        delete_items(self._table, [*obsolete, guard] if has_guard and not guarded else obsolete)

    def send(self, now: int, tokens: Tokens) -> list[str]:
        """Sends the ticks that are due soon, and returns the functions whose canaries must be checked. Raises NotSent.

        After a downtime only the latest missed tick of a trigger is sent.
        """
        guarded = []
        for item in read_partition(self._table, "C", ConsistentRead=True):
            if "paused" in item:
                continue
            due = int(item["next"]["N"])
            if item["sk"]["S"].count("#") == 1:
                if due <= now + AHEAD_MS or due > now + AHEAD_MS + GUARD_EVERY_MS + _SKEW_MS:
                    guarded.append(item["sk"]["S"].partition("#")[0])
                    self._update(item, now + AHEAD_MS + GUARD_EVERY_MS)
            else:
                self._send(item, due, now, tokens)
        return guarded

    def _send(self, item: Item, due: int, now: int, tokens: Tokens) -> None:
        """Sends the ticks of a trigger that are due soon.

        If the stored time is later than the trigger's next tick, a clock that was ahead wrote it, and it is computed
        anew.
        """
        function_id, _, rest = item["sk"]["S"].partition("#")
        cron, _, timezone = rest.rpartition("#")  # a cron expression may contain `#`: `1#2` is the second Monday
        if due > now + AHEAD_MS:
            if due <= next_tick(cron, timezone, now + AHEAD_MS + _SKEW_MS):
                return
            log.warning("next tick of %s, cron %s, was too far ahead (wrong clock?): computed anew", function_id, cron)
            due = next_tick(cron, timezone, now)
        at = latest_tick(cron, timezone, due - 1, now) or due
        messages = []
        while at <= now + AHEAD_MS:
            tick = (function_id, cron, timezone, at)
            messages.append(entry(tick_message(*tick, tokens.of(*tick_name(*tick))), delay_s(at, now)))
            at = next_tick(cron, timezone, at)
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
                ConditionExpression="#next = :before AND attribute_not_exists(paused)",
                ExpressionAttributeNames={"#next": "next"},
                ExpressionAttributeValues=values,
            )
        except db.exceptions.ConditionalCheckFailedException:
            pass  # another invocation of `tick` has updated it, or the trigger was removed or paused

"""Events that are kept for paused functions, in the order in which they were accepted.

One rule, as for waits: `route` stores the event here and then looks whether the function is still paused; a resume
writes that it is not, and then looks for events here. Whoever comes second finds the first.
"""

from __future__ import annotations

from typing import Any

from stepwell.aws.clients import client
from stepwell.aws.queues.messages import entry, release_message
from stepwell.aws.queues.outbox import send_messages
from stepwell.aws.resources import Resources
from stepwell.aws.table.items import read_item
from stepwell.aws.table.keys import Item, event_entry, function_key, paused_events_partition, read_event_entry
from stepwell.aws.table.routings import read_routing
from stepwell.core.events.events import Event
from stepwell.core.routing.versions import Routing

_PAGE = 25


class PausedEvents:
    def __init__(self, resources: Resources) -> None:
        self._table, self._queue = resources.table, resources.outcomes_queue
        self._retention_s = resources.retention_days * 86_400
        self._next: list[bytes] = []

    def put(self, function_id: str, event: Event, now: int) -> None:
        """Keep an event; if its function is not paused any more, see to it that it is routed. Raises ClientError."""
        item = {
            **event_entry(paused_events_partition(function_id), event.position, event.id),
            "ttl": {"N": str(now // 1000 + self._retention_s)},
        }
        client("dynamodb").put_item(TableName=self._table, Item=item)
        if not self._routing(function_id).is_paused:
            self.release(function_id)

    def release(self, function_id: str) -> None:
        """Ask for what is kept to be routed, with the next `send`."""
        message = release_message(function_id, None)
        if message not in self._next:
            self._next.append(message)

    def page(self, function_id: str, after: str | None) -> tuple[bool, list[tuple[str, Item]]]:
        """Whether the function is live, and a page of what is kept for it: ids of events, and the keys of what is kept.
        If there is more, a message will ask for the next page. Nothing while it is paused."""
        routing = self._routing(function_id)
        is_live = routing.live is not None
        if routing.is_paused:
            return is_live, []
        start: dict[str, Any] = {}
        if after is not None:
            start = {"ExclusiveStartKey": {"pk": {"S": paused_events_partition(function_id)}, "sk": {"S": after}}}
        answer = client("dynamodb").query(
            TableName=self._table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": paused_events_partition(function_id)}},
            ConsistentRead=True,
            Limit=_PAGE,
            **start,
        )
        if "LastEvaluatedKey" in answer:
            self._next.append(release_message(function_id, answer["LastEvaluatedKey"]["sk"]["S"]))
        return is_live, [(read_event_entry(item)[1], {"pk": item["pk"], "sk": item["sk"]}) for item in answer["Items"]]

    def send(self) -> None:
        """Raises NotSent."""
        following, self._next = self._next, []
        send_messages(self._queue, [entry(body) for body in following])

    def _routing(self, function_id: str) -> Routing:
        """As it is now."""
        item = read_item(self._table, function_key(function_id))
        return Routing(None) if item is None else read_routing(item)

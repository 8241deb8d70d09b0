"""Keeps events for paused functions, in the order in which they were accepted.

`route` stores the event here and then checks whether the function is still paused. A resume first changes the function
and then reads the events here. So whichever comes second finds what the first has written.
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
    """Stores events for paused functions, and reads them when a function is resumed."""

    def __init__(self, resources: Resources) -> None:
        self._table, self._queue = resources.table, resources.outcomes_queue
        self._retention_s = resources.retention_days * 86_400
        self._next: list[bytes] = []

    def put(self, function_id: str, event: Event, now: int) -> None:
        """Stores an event. If the function is no longer paused, also requests the release. Raises ClientError."""
        item = {
            **event_entry(paused_events_partition(function_id), event.position, event.id),
            "ttl": {"N": str(now // 1000 + self._retention_s)},
        }
        client("dynamodb").put_item(TableName=self._table, Item=item)
        if not self._routing(function_id).is_paused:
            self.release(function_id)

    def release(self, function_id: str) -> None:
        """Adds a message to the next `send` that releases all events of a function."""
        message = release_message(function_id, None)
        if message not in self._next:
            self._next.append(message)

    def page(self, function_id: str, after: str | None) -> tuple[bool, list[tuple[str, Item]]]:
        """Whether the function is live, and a page of stored events: the event's id and the item's key.

        The page is empty while the function is paused. If there are more, the next `send` requests the next page.
        """
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
        """Sends the messages that were added since the last call. Raises NotSent."""
        following, self._next = self._next, []
        send_messages(self._queue, [entry(body) for body in following])

    def _routing(self, function_id: str) -> Routing:
        """The current routing of a function, read from the table."""
        item = read_item(self._table, function_key(function_id))
        return Routing(None) if item is None else read_routing(item)

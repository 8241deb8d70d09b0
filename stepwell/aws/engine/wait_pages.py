"""Pages of waits that an event may satisfy, and of events that may satisfy a wait.

Each further page is requested by a message, so that waking many runs is spread over several invocations.
"""

from __future__ import annotations

from stepwell.aws.clients import client
from stepwell.aws.queues.messages import entry, scan_message, scan_name, wake_message, wake_name
from stepwell.aws.queues.outbox import send_messages
from stepwell.aws.resources import Resources
from stepwell.aws.signing.tokens import Tokens
from stepwell.platform import OpenedWait

_PAGE = 100


class WaitPages:
    """Reads pages of waits, and sends the messages for further pages."""

    def __init__(self, resources: Resources, tokens: Tokens) -> None:
        self._table, self._queue, self._tokens = resources.table, resources.outcomes_queue, tokens
        self._next: list[bytes] = []

    def page(self, event_id: str, partition: str, after: str | None = None) -> list[OpenedWait]:
        """A page of the open waits in a partition. If there are more, the next `send` requests the next page."""
        options = {} if after is None else {"ExclusiveStartKey": {"pk": {"S": partition}, "sk": {"S": after}}}
        answer = client("dynamodb").query(
            TableName=self._table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": partition}},
            ConsistentRead=True,
            Limit=_PAGE,
            **options,
        )
        if "LastEvaluatedKey" in answer:
            name = event_id, partition, answer["LastEvaluatedKey"]["sk"]["S"]
            self._next.append(wake_message(*name, self._tokens.of(*wake_name(*name))))
        found = []
        for item in answer["Items"]:
            run_id, _, pause = item["sk"]["S"].rpartition("#")
            found.append(OpenedWait(run_id, int(pause), int(item["d"]["N"])))
        return found

    def continue_scan(self, run_id: str, pause: int, after: int) -> None:
        """Adds a message to the next `send` that continues the scan of a wait after a position."""
        name = run_id, pause, after
        self._next.append(scan_message(*name, self._tokens.of(*scan_name(*name))))

    def send(self) -> None:
        """Sends the messages that were added since the last call. Raises NotSent."""
        following, self._next = self._next, []
        send_messages(self._queue, [entry(body) for body in following])

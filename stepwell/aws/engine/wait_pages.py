"""Finding the waits that an event may settle, a page at a time: who wakes many runs does so in several invocations. And
the events that may settle a wait."""

from __future__ import annotations

from stepwell.aws.clients import client
from stepwell.aws.queues.messages import entry, scan_message, scan_name, wake_message, wake_name
from stepwell.aws.queues.outbox import send_messages
from stepwell.aws.resources import Resources
from stepwell.aws.signing.tokens import Tokens
from stepwell.platform import OpenedWait

_PAGE = 100


class Waking:
    def __init__(self, resources: Resources, tokens: Tokens) -> None:
        self._table, self._queue, self._tokens = resources.table, resources.outcomes_queue, tokens
        self._next: list[bytes] = []

    def page(self, event_id: str, partition: str, after: str | None = None) -> list[OpenedWait]:
        """Open waits of a partition; if there are more, a message will ask for the next page."""
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
        """Have a message ask for the events behind this position."""
        name = run_id, pause, after
        self._next.append(scan_message(*name, self._tokens.of(*scan_name(*name))))

    def send(self) -> None:
        """Ask for the next pages. Raises NotSent."""
        following, self._next = self._next, []
        send_messages(self._queue, [entry(body) for body in following])

"""The messages that the engine sends to the queues, for tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from stepwell.aws import clients
from stepwell.testing.batches import Json


class Sent(NamedTuple):
    body: Json
    delay_s: int  # waits until it arrives

    @property
    def kind(self) -> str:
        return str(self.body["stepwell"])


@contextmanager
def sent_messages() -> Iterator[list[Sent]]:
    """The messages that are sent in the meantime, by batch."""
    found: list[Sent] = []

    def note(params: Json, **_: Any) -> None:
        for entry in json.loads(params["body"])["Entries"]:
            found.append(Sent(json.loads(entry["MessageBody"]), entry.get("DelaySeconds", 0)))

    events = clients.client("sqs").meta.events
    events.register("before-call.sqs.SendMessageBatch", note, unique_id="sent")
    try:
        yield found
    finally:
        events.unregister("before-call.sqs.SendMessageBatch", unique_id="sent")

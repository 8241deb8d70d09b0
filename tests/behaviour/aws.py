"""The AWS platform for the behaviour suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from stepwell.aws.clients import client
from stepwell.core.times import time_text
from stepwell.testing.account.environment import ENGINE_EVENTS
from stepwell.testing.account.unkindness import Unkindness
from stepwell.testing.ecs.containers import ContainerStepwell
from tests.behaviour import scripted
from tests.behaviour.words import Json, write_function


class AwsTestPlatform(ContainerStepwell):
    def __init__(self, folder: Path, *account: Any, unkindness: Unkindness | None = None) -> None:
        super().__init__(*account, unkindness=unkindness)
        self._folder = folder
        self._host.shortcut = scripted.answer
        self._on_the_bus: dict[str, Json] = {}

    def deploy(self, definition: Json | str, files: dict[str, str | bytes] | None = None) -> int:  # type: ignore[override]
        return super().deploy(write_function(self._folder, definition, files))

    def push(self, definition: Json | str, files: dict[str, str | bytes] | None = None, **release: Any) -> Json:  # type: ignore[override]
        return super().push(write_function(self._folder, definition, files), **release)

    def events(self, name: str | None = None) -> list[Json]:
        """Also returns the engine's own events that are sent only to the bus, because no function here needs them."""
        stored = super().events(name)
        known = {event["id"] for event in stored}
        others = [e for i, e in self._engine_events().items() if i not in known and name in (None, e["name"])]
        return sorted([*stored, *others], key=lambda event: str(event["accepted_at"]))

    def _engine_events(self) -> dict[str, Json]:
        sqs = client("sqs")
        url = sqs.get_queue_url(QueueName=ENGINE_EVENTS)["QueueUrl"]
        while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                envelope = orjson.loads(message["Body"])
                self._on_the_bus[envelope["detail"]["id"]] = {
                    **envelope["detail"],
                    "accepted_at": time_text(envelope["detail"]["ts"]),
                    "not_started": [],
                    "invalid": [],
                }
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return self._on_the_bus

"""The two queues between the engine's Lambdas: `events` feeds route, `outcomes` feeds advance."""

from __future__ import annotations

from aws_cdk import Duration
from constructs import Construct

from infra.key import key_of
from infra.settings import Settings
from stepwell.cdk.queue import DurableQueue

HANDLER_TIMEOUT = Duration.seconds(60)  # of route and advance


class Queues(Construct):
    def __init__(self, scope: Construct, settings: Settings) -> None:
        super().__init__(scope, "Queues")
        key = key_of(self, settings)
        self.events = DurableQueue(self, "Events", handler_timeout=HANDLER_TIMEOUT, key=key)
        self.outcomes = DurableQueue(self, "Outcomes", handler_timeout=HANDLER_TIMEOUT, key=key)

    @property
    def all(self) -> dict[str, DurableQueue]:
        return {"events": self.events, "outcomes": self.outcomes}

"""The queues between the engine's Lambdas (`stepwell.aws.topology`): `events` feeds route, `outcomes` feeds advance."""

from __future__ import annotations

from aws_cdk import Duration
from constructs import Construct

from infra.key import key_of
from infra.settings import Settings
from stepwell.aws.topology import EVENTS, OUTCOMES, QUEUES, reader
from stepwell.cdk.queue import DurableQueue


class Queues(Construct):
    def __init__(self, scope: Construct, settings: Settings) -> None:
        super().__init__(scope, "Queues")
        key = key_of(self, settings)
        timeouts = {name: Duration.seconds(reader(name).timeout_s) for name in QUEUES}
        collected = Duration.seconds(settings.batching_window)
        self.all = {
            name: DurableQueue(
                self, name.capitalize(), handler_timeout=timeouts[name], batching_window=collected, key=key
            )
            for name in QUEUES
        }
        self.events, self.outcomes = self.all[EVENTS], self.all[OUTCOMES]
